// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "log_context.hpp"

#include "log_group.hpp"
#include "marks.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace moat::fault {

namespace {

/// The hexadecimal number at the beginning of `text`, which moves behind it.
[[nodiscard]] std::optional<std::uint64_t> take_hex(std::string_view& text) {
    if (text.starts_with("0x"))
        text.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (error != std::errc())
        return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
    return value;
}

/// "0xfee00000-0xfeefffff" or "fee00000-feefffff" at the beginning of `text`.
[[nodiscard]] std::optional<PhysicalRegion> take_range(std::string_view& text) {
    const auto first = take_hex(text);
    if (!first || !text.starts_with('-'))
        return std::nullopt;
    text.remove_prefix(1);
    const auto last = take_hex(text);
    if (!last || *last < *first)
        return std::nullopt;
    return PhysicalRegion{.first = *first, .last = *last};
}

[[nodiscard]] bool is_name_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

/// A PCI function's name within a line, and the word before it.
struct NamedFunction {
    Source function;
    std::string_view name;
    std::string_view driver;
    std::string_view rest; ///< behind "0000:01:00.0: "
};

/// The first "word 0000:01:00.0: " of a line, as Linux's dev_printk() writes it.
[[nodiscard]] std::optional<NamedFunction> find_function(std::string_view line) {
    for (std::size_t dot = line.find('.'); dot != std::string_view::npos;
         dot = line.find('.', dot + 1)) {
        if (dot < 11 || dot + 2 >= line.size() || line[dot - 3] != ':' || line[dot - 6] != ':' ||
            line[dot + 2] != ':')
            continue;
        std::size_t begin = dot - 6;
        while (begin != 0 && line[begin - 1] != ' ')
            --begin;
        const std::string_view name = line.substr(begin, dot + 2 - begin);
        const std::optional<Source> function = parse_pci_function(name);
        if (!function || begin < 2)
            continue;
        std::size_t word = begin - 1;
        while (word != 0 && is_name_character(line[word - 1]))
            --word;
        return NamedFunction{.function = *function,
                             .name = name,
                             .driver = line.substr(word, begin - 1 - word),
                             .rest = line.substr(std::min(dot + 4, line.size()))};
    }
    return std::nullopt;
}

struct MilestoneMark {
    std::string_view text;
    Milestone milestone;
};

/// Linux 6.12: kernel/power/suspend.c, drivers/iommu/intel/iommu.c and amd/init.c,
/// drivers/pci/hotplug/pciehp_ctrl.c, drivers/usb/host/xhci.c and xhci-ring.c,
/// drivers/nvme/host/pci.c, drivers/pci/pci.c, kernel/module/main.c.
constexpr std::array milestone_marks = {
    MilestoneMark{"PM: suspend exit", Milestone::resumed},
    MilestoneMark{"Waking up from system sleep", Milestone::resumed},
    MilestoneMark{"trying to copy translation structures", Milestone::copied_tables},
    MilestoneMark{"Copied translation tables from previous kernel", Milestone::copied_tables},
    MilestoneMark{"Copied DEV table from previous kernel", Milestone::copied_tables},
    MilestoneMark{"Link Down", Milestone::link_lost},
    MilestoneMark{"Card not present", Milestone::link_lost},
    MilestoneMark{"HC died", Milestone::controller_died},
    MilestoneMark{"assume dead", Milestone::controller_died},
    MilestoneMark{"controller is down; will reset", Milestone::reset},
    MilestoneMark{"timeout, reset controller", Milestone::reset},
    MilestoneMark{"not ready after reset", Milestone::reset},
    MilestoneMark{"op 0x3:(DISCARD)", Milestone::discarded},
    MilestoneMark{"fstrim", Milestone::discarded},
    MilestoneMark{"out-of-tree module taints kernel", Milestone::foreign_module},
};

[[nodiscard]] std::uint32_t key_of(const Source& function) {
    return static_cast<std::uint32_t>(function.segment().value_or(0)) << 16 | function.id();
}

} // namespace

void LogContext::add(PhysicalRegion region) {
    if (regions_.size() < most)
        regions_.push_back(std::move(region));
}

DeviceFacts* LogContext::add_device(const Source& function) {
    const auto found = devices_.find(key_of(function));
    if (found != devices_.end())
        return &found->second;
    return devices_.size() < most ? &devices_[key_of(function)] : nullptr;
}

const DeviceFacts* LogContext::device(const Source& function) const {
    const auto found = devices_.find(key_of(function));
    return found == devices_.end() ? nullptr : &found->second;
}

/// A line with both names of a device: "client: 0001:06:00.0 sid: 0x20600".
void LogContext::learn_stream(const LogEvent& event) {
    const auto stream = event.number("sid");
    const Source& source = event.record.source;
    if (stream && *stream >= source.id() && *stream <= 0xffff'ffff && streams_.size() < most)
        streams_[event.unit] = {static_cast<std::uint32_t>(*stream - source.id()),
                                source.segment().value_or(0)};
}

std::optional<Source> LogContext::function_of(const LogEvent& event) const {
    if (const std::optional<Source> function = pci_function(event))
        return function;
    const Source& source = event.record.source;
    if (source.kind() == Source::Kind::unknown || event.origin == Origin::smmu_v2 ||
        event.origin == Origin::soc)
        return std::nullopt;
    const auto at = [](std::uint32_t id, std::uint16_t segment) {
        return Source::requester(static_cast<std::uint16_t>(id), segment);
    };
    if (const auto found = streams_.find(event.unit); found != streams_.end())
        if (const std::uint32_t id = source.id() - found->second.first; id <= 0xffff)
            return at(id, found->second.second);
    const auto known = devices_.find(source.id()); // segment 0
    return known == devices_.end() ? std::nullopt : std::optional(at(source.id() & 0xffff, 0));
}

std::vector<Source> LogContext::neighbours(const Source& function) const {
    std::vector<Source> found;
    const std::uint32_t bus = key_of(function) & ~0xffU;
    for (auto each = devices_.lower_bound(bus); each != devices_.end() && each->first <= bus + 0xff;
         ++each)
        if (each->first != key_of(function))
            found.push_back(Source::requester(static_cast<std::uint16_t>(each->first),
                                              static_cast<std::uint16_t>(each->first >> 16)));
    return found;
}

void LogContext::line(std::string_view line) {
    if (!lspci_line(line) && !iomem_line(line))
        kernel_line(line);
}

void LogContext::event(const LogEvent& event) {
    if (event.kind == LogEvent::Kind::reserved_region && !event.record.where.empty())
        add({.first = event.record.where.start().value(),
             .last = event.record.where.last().value(),
             .what = event.text.empty() ? "a region that the firmware reserves" : event.text});
    const std::optional<Source> function = pci_function(event);
    if (function)
        learn_stream(event);
    if (!function || event.driver.empty() || event.driver == "pci")
        return;
    if (DeviceFacts* const facts = add_device(*function))
        facts->driver = event.driver;
}

/// "01:00.0 Non-Volatile memory controller [0108]: Vendor Device [144d:a80a] (rev 01)", and below
/// it
/// "\tKernel driver in use: nvme".
bool LogContext::lspci_line(std::string_view line) {
    constexpr std::string_view in_use = "\tKernel driver in use: ";
    if (line.starts_with(in_use)) {
        if (listed_ != nullptr)
            listed_->driver = line.substr(in_use.size());
        return true;
    }
    const std::size_t blank = line.find(' ');
    if (blank < 7 || blank > 12)
        return false;
    const std::optional<Source> function = parse_pci_function(line.substr(0, blank));
    if (!function)
        return false;
    lists_devices_ = true;
    listed_ = add_device(*function);
    if (listed_ == nullptr)
        return true;
    std::string_view words = line.substr(blank + 1);
    const std::size_t colon = words.find(": ");
    listed_->description = words.substr(colon == std::string_view::npos ? 0 : colon + 2);
    for (std::size_t open = words.find('['); open != std::string_view::npos;
         open = words.find('[')) {
        words.remove_prefix(open + 1);
        const auto number = take_hex(words);
        if (number && *number <= 0xffff && words.starts_with(']') && listed_->vendor == 0)
            listed_->pci_class = static_cast<std::uint16_t>(*number);
        else if (number && *number <= 0xffff && words.starts_with(':')) {
            words.remove_prefix(1);
            listed_->vendor = static_cast<std::uint16_t>(*number);
            listed_->product = static_cast<std::uint16_t>(take_hex(words).value_or(0));
        }
    }
    return true;
}

/// "  fed00000-fed003ff : HPET 0"
bool LogContext::iomem_line(std::string_view line) {
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    std::optional<PhysicalRegion> region = take_range(line);
    if (!region || !line.starts_with(" : "))
        return false;
    region->what = line.substr(3);
    if (region->last != 0) // without privileges the kernel prints zeros
        add(std::move(*region));
    return true;
}

/// "nvme 0000:01:00.0: ...", "... BAR 0 [mem 0xd0000000-0xd0003fff 64bit]", "BIOS-e820: [mem
/// 0x0000000000100000-0x00000000bffdffff] usable", "efifb: framebuffer at 0xd0000000, using 3072k".
void LogContext::kernel_line(std::string_view line) {
    const std::optional<NamedFunction> named = find_function(line);
    if (named && !named->driver.empty()) {
        DeviceFacts* const facts = add_device(named->function);
        if (facts != nullptr && named->driver != "pci" && named->driver != "iommu")
            facts->driver = named->driver;
        std::string_view rest = named->rest;
        constexpr std::string_view bound = "Bound to PCI domain "; // controller/vmd.c
        if (facts != nullptr && rest.starts_with(bound))
            facts->domain = rest.substr(bound.size());
        if (facts != nullptr && rest.starts_with('[')) { // "[144d:a80a] type 00 class 0x010802"
            rest.remove_prefix(1);
            facts->vendor = static_cast<std::uint16_t>(take_hex(rest).value_or(0));
            rest.remove_prefix(std::min<std::size_t>(1, rest.size()));
            facts->product = static_cast<std::uint16_t>(take_hex(rest).value_or(0));
            const std::size_t at = rest.find("class 0x");
            rest.remove_prefix(std::min(at == std::string_view::npos ? at : at + 6, rest.size()));
            facts->pci_class = static_cast<std::uint16_t>(take_hex(rest).value_or(0) >> 8);
        }
    }
    if (!context_marks.in(line))
        return;
    if (const std::size_t at = line.find("[mem 0x"); at != std::string_view::npos) {
        std::string_view rest = line.substr(at + 5);
        if (std::optional<PhysicalRegion> region = take_range(rest)) {
            if (named)
                region->what = "a BAR of " + std::string(named->name);
            else if (rest.starts_with("] "))
                region->what =
                    "memory that the firmware calls \"" + std::string(rest.substr(2)) + '"';
            if (!region->what.empty())
                add(std::move(*region));
        }
    }
    if (const std::size_t at = line.find("framebuffer at 0x"); at != std::string_view::npos) {
        std::string_view rest = line.substr(at + 15);
        if (const auto first = take_hex(rest))
            add({.first = *first, .last = *first | 0x7fffff, .what = "the boot framebuffer"});
    }
    constexpr std::string_view io_apic = "[VT-D] IOAPIC: "; // Xen, vtd/dmar.c
    if (const std::size_t at = line.find(io_apic); at != std::string_view::npos)
        if (const auto function = parse_pci_function(line.substr(at + io_apic.size())))
            if (DeviceFacts* const facts = add_device(*function))
                facts->description = "an I/O APIC";
    for (const MilestoneMark& mark : milestone_marks)
        if (line.find(mark.text) != std::string_view::npos)
            milestones_ |= 1U << static_cast<unsigned>(mark.milestone);
}

std::string LogContext::at(std::uint64_t address) const {
    const PhysicalRegion* smallest = nullptr;
    for (const PhysicalRegion& region : regions_)
        if (region.first <= address && address <= region.last &&
            (smallest == nullptr || region.last - region.first < smallest->last - smallest->first))
            smallest = &region;
    return smallest == nullptr ? std::string() : smallest->what;
}

} // namespace moat::fault
