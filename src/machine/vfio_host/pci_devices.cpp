// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_host/pci_devices.hpp"

#include "core/parse.hpp"
#include "platform/file_descriptor.hpp"

#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace moat::machine::vfio_host {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(Bdf address, std::string_view root) {
    return fs::path(root) / "bus/pci/devices" / to_string(address);
}

std::optional<std::uint64_t> number(std::string_view text, int base) {
    if (base == 16 && text.starts_with("0x"))
        text.remove_prefix(2);
    while (!text.empty() && (text.back() == '\n' || text.back() == ' '))
        text.remove_suffix(1);
    return number_in(text, base);
}

std::string content(const fs::path& file) {
    std::ifstream in(file);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

/// The last part of a link's target; empty if there is none.
std::string target_name(const fs::path& link) {
    std::error_code error;
    const fs::path target = fs::read_symlink(link, error);
    return error ? std::string() : target.filename().string();
}

/// Parses lines of "first last flags"; the first six are the BARs. Flags: Linux, ioport.h.
void read_bars(const std::string& text, std::array<Bar, 6>& bars) {
    constexpr std::uint64_t is_ports = 0x100;
    constexpr std::uint64_t is_memory = 0x200;
    constexpr std::uint64_t is_prefetchable = 0x2000;
    constexpr std::uint64_t is_64_bit = 0x100000;
    std::istringstream lines(text);
    for (Bar& bar : bars) {
        std::string first;
        std::string last;
        std::string flags;
        if (!(lines >> first >> last >> flags))
            return;
        const auto from = number(first, 16);
        const auto to = number(last, 16);
        const std::uint64_t bits = number(flags, 16).value_or(0);
        if (!from || !to || *to <= *from || (bits & (is_ports | is_memory)) == 0)
            continue;
        bar.kind = (bits & is_ports) != 0    ? BarKind::ports
                   : (bits & is_64_bit) != 0 ? BarKind::memory64
                                             : BarKind::memory32;
        bar.prefetchable = (bits & is_prefetchable) != 0;
        bar.size = ByteCount(*to - *from + 1);
    }
}

HostFunction read_function(Bdf address, const fs::path& folder) {
    HostFunction found;
    const auto hex = [&](const char* file) {
        return number(content(folder / file), 16).value_or(0);
    };
    found.info.address = address;
    found.info.vendor = static_cast<std::uint16_t>(hex("vendor"));
    found.info.device = static_cast<std::uint16_t>(hex("device"));
    found.info.class_code = static_cast<std::uint32_t>(hex("class"));
    read_bars(content(folder / "resource"), found.info.bars);
    found.driver = target_name(folder / "driver");
    const auto small = [](std::string_view text) -> std::optional<unsigned> {
        const auto value = number(text, 10);
        return value && *value <= 0xffffffff ? std::optional(static_cast<unsigned>(*value))
                                             : std::nullopt;
    };
    found.group = small(target_name(folder / "iommu_group"));
    found.node = small(content(folder / "numa_node")); // "-1" if unknown
    constexpr std::uint32_t class_bridge = 6;
    found.bridge = found.info.class_code >> 16 == class_bridge;
    return found;
}

/// One write, as sysfs requires.
Result<void> write_attribute(const fs::path& file, std::string_view text, const char* sentence) {
    const platform::FileDescriptor out(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
    if (out.get() >= 0 &&
        ::write(out.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()))
        return {};
    if (errno == EACCES || errno == EPERM || errno == EROFS)
        return platform::fail_errno("cannot write sysfs: run as root, outside of a container",
                                    ErrorCode::refused);
    return platform::fail_errno(sentence, errno == EBUSY ? ErrorCode::busy : ErrorCode::io);
}

Result<void> probe_again(Bdf address, std::string_view root) {
    return write_attribute(fs::path(root) / "bus/pci/drivers_probe", to_string(address),
                           "no driver binds the function: see the kernel's log");
}

Result<void> release_from_driver(const HostFunction& function, std::string_view root) {
    if (function.driver.empty())
        return {};
    return write_attribute(folder_of(function.info.address, root) / "driver/unbind",
                           to_string(function.info.address),
                           "the function's driver does not release it");
}

} // namespace

Result<Bdf> parse_bdf(std::string_view text) {
    // From the right: function, device, bus, segment.
    const auto take = [&](char before, unsigned longest) -> std::optional<unsigned> {
        const std::size_t at = before == '\0' ? text.npos : text.rfind(before);
        const std::string_view digits = at == text.npos ? text : text.substr(at + 1);
        text = at == text.npos ? std::string_view() : text.substr(0, at);
        if (digits.empty() || digits.size() > longest)
            return std::nullopt;
        const auto value = number(digits, 16);
        return value ? std::optional(static_cast<unsigned>(*value)) : std::nullopt;
    };
    const auto function = take('.', 1);
    const auto device = take(':', 2);
    const auto bus = take(':', 2);
    const auto segment = text.empty() ? std::optional(0U) : take('\0', 4);
    if (!function || !device || !bus || !segment || *function > 7 || *device > 31)
        return fail(ErrorCode::not_found, "not a PCI address such as 0000:00:04.0");
    return Bdf(*bus, *device, *function, static_cast<std::uint16_t>(*segment));
}

Result<std::vector<HostFunction>> list_functions(std::string_view root) {
    std::vector<HostFunction> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(fs::path(root) / "bus/pci/devices", error))
        if (const auto address = parse_bdf(entry.path().filename().string()))
            found.push_back(read_function(*address, entry.path()));
    if (error)
        return fail(ErrorCode::not_found, "sysfs shows no PCI devices: is it mounted?",
                    {"errno", static_cast<std::uint64_t>(error.value())});
    std::ranges::sort(found, {}, [](const HostFunction& each) { return each.info.address; });
    return found;
}

Result<HostFunction> find_function(Bdf address, std::string_view root) {
    const fs::path folder = folder_of(address, root);
    std::error_code error;
    if (!fs::exists(folder / "vendor", error))
        return fail(ErrorCode::not_found, "this host has no such PCI function",
                    {"requester", address.requester()}, {"segment", address.segment()});
    return read_function(address, folder);
}

Result<void> bind_to_vfio(Bdf address, std::string_view root) {
    MOAT_LET(const HostFunction function, find_function(address, root));
    if (function.driver == vfio_driver)
        return {};
    if (function.bridge)
        return fail(ErrorCode::refused,
                    "bridges cannot be bound: the devices behind them would disappear",
                    {"class", function.info.class_code});
    if (!function.group)
        return fail(ErrorCode::unsupported, "the function has no IOMMU: enable it in the firmware, "
                                            "and boot with intel_iommu=on");
    std::error_code error;
    if (!fs::exists(fs::path(root) / "bus/pci/drivers" / vfio_driver, error))
        return fail(ErrorCode::not_found, "vfio-pci is not loaded: modprobe vfio-pci");
    const fs::path override_file = folder_of(address, root) / "driver_override";
    MOAT_TRY(write_attribute(override_file, vfio_driver, "cannot write driver_override"));
    auto done = release_from_driver(function, root);
    if (done)
        done = probe_again(address, root);
    if (done) {
        const auto now = find_function(address, root);
        if (now && now->driver == vfio_driver)
            return {};
        done = fail(ErrorCode::io, "vfio-pci did not bind the function: see the kernel's log");
    }
    // Lets the previous driver bind it again.
    (void)write_attribute(override_file, "\n", "the choice of a driver cannot be undone");
    (void)probe_again(address, root);
    return done;
}

Result<void> unbind_from_vfio(Bdf address, std::string_view root) {
    MOAT_LET(const HostFunction function, find_function(address, root));
    if (function.driver != vfio_driver)
        return fail(ErrorCode::mismatch, "the function is not bound to vfio-pci");
    MOAT_TRY(write_attribute(folder_of(address, root) / "driver_override", "\n",
                             "the choice of a driver cannot be undone"));
    MOAT_TRY(release_from_driver(function, root));
    return probe_again(address, root);
}

} // namespace moat::machine::vfio_host
