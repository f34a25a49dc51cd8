// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "answer.hpp"

#include "moat/fault/report.hpp"

#include "requester.hpp"

#include <algorithm>
#include <cstring>

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

[[nodiscard]] std::string_view past_verb(Access access) {
    switch (access) {
    case Access::read:
        return "read";
    case Access::write:
        return "wrote";
    case Access::execute:
        return "fetched instructions from";
    case Access::unknown:
        break;
    }
    return "accessed";
}

/// VT-d gives one reason for an absent leaf and for one that forbids the access.
[[nodiscard]] bool tells_absence(Origin origin) {
    return origin != Origin::intel && origin != Origin::qemu && origin != Origin::xen &&
           origin != Origin::freebsd && origin != Origin::openbsd;
}

[[nodiscard]] std::string_view because(Reason reason, Origin origin) {
    switch (reason) {
    case Reason::not_present:
        return "nothing is mapped there for the device";
    case Reason::permission:
        if (tells_absence(origin))
            return "the mapping does not allow this access";
        return "nothing is mapped there, or the mapping does not allow this access";
    case Reason::address_size:
        return "the address is wider than the IOMMU or its tables translate";
    case Reason::not_attached:
        return "the IOMMU has no valid entry for the device";
    case Reason::blocked:
        return "the device is in a domain that blocks every access";
    case Reason::pasid:
        return "its PASID is not set up";
    case Reason::malformed_table:
        return "an entry of the IOMMU's tables is malformed";
    case Reason::table_access:
        return "the IOMMU could not read its own tables";
    case Reason::bad_request:
        return "the device may not send this kind of request";
    case Reason::out_of_bounds:
        return "the address lies outside the buffer";
    case Reason::interrupt:
        return "interrupt remapping blocked the message";
    case Reason::invalidation:
        return "the device did not answer an invalidation of its translation cache";
    case Reason::hardware:
        return "an error of the IOMMU's hardware or of its memory";
    case Reason::events_lost:
        return "faults were not recorded";
    case Reason::unknown:
        break;
    }
    return {};
}

[[nodiscard]] std::string_view maker(Origin origin) {
    constexpr std::array<std::string_view, 18> names = {"Intel VT-d",    "AMD-Vi",
                                                        "Arm SMMU",      "Arm SMMUv3",
                                                        "RISC-V IOMMU",  "virtio-iommu",
                                                        "QEMU",          "VFIO",
                                                        "a trace event", "Linux",
                                                        "Xen",           "FreeBSD",
                                                        "OpenBSD",       "the chip's IOMMU",
                                                        "swiotlb",       "the DMA API's checks",
                                                        "EEH",           "DPDK"};
    return names[static_cast<std::size_t>(origin)];
}

[[nodiscard]] std::string device_name(const LogEvent& event) {
    if (event.record.source.kind() != Source::Kind::unknown)
        return to_string(event.record.source);
    if (!event.device.empty())
        return printable(event.device);
    return event.kind == Kind::fault ? "an unknown device" : "";
}

/// "10,672.9"
[[nodiscard]] std::string seconds(std::uint64_t ns) {
    const std::uint64_t tenths = (ns + 50'000'000) / 100'000'000;
    return with_commas(tenths / 10) + '.' + std::to_string(tenths % 10);
}

[[nodiscard]] std::string how_often(const LogGroup& group) {
    const std::uint64_t times = group.count + group.suppressed;
    std::string text;
    if (times != 1)
        text = ", " + with_commas(times) + " times";
    if (!group.begin_ns)
        return group.suppressed == 0
                   ? text
                   : text + " (" + with_commas(group.suppressed) + " of them suppressed)";
    if (times == 1)
        return " at " + seconds(*group.begin_ns) + " s";
    text += " from " + seconds(*group.begin_ns) + " s to " + seconds(*group.end_ns) + " s";
    std::string more;
    const std::uint64_t ns = *group.end_ns - *group.begin_ns;
    if (ns >= 100'000'000 && times * 1'000'000'000 >= ns)
        more = "about " + with_commas(times * 1'000'000'000 / ns) + "/s";
    if (group.suppressed != 0)
        more += (more.empty() ? "" : "; ") + with_commas(group.suppressed) + " of them suppressed";
    return more.empty() ? text : text + " (" + more + ')';
}

[[nodiscard]] std::string run_text(const AddressRun& run) {
    if (run.count == 1)
        return hexadecimal(run.first);
    return hexadecimal(run.first) + " to " + hexadecimal(run.last) + ", every " +
           to_string(ByteCount(run.stride)) + " (" + with_commas(run.count) + ')';
}

/// The addresses of a fault, as the object of a sentence.
[[nodiscard]] std::string place(const LogGroup& group) {
    const Precision precision = group.first.record.precision;
    const std::vector<AddressRun> runs = group.addresses.runs();
    if (precision == Precision::none || runs.empty())
        return "memory";
    const bool is_page = precision == Precision::page;
    if (runs.size() == 1 && runs.front().count == 1)
        return (is_page ? "page " : "address ") + hexadecimal(runs.front().first);
    if (runs.size() == 1)
        return (is_page ? "pages " : "addresses ") + run_text(runs.front());
    return with_commas(group.addresses.kept().size()) + (is_page ? " pages" : " addresses") +
           " between " + hexadecimal(runs.front().first) + " and " + hexadecimal(runs.back().last);
}

[[nodiscard]] std::string error_text(const LogEvent& event) {
    return event.error ? std::string(": ") + std::strerror(*event.error) : std::string();
}

[[nodiscard]] std::string with_text(const LogEvent& event) {
    const std::size_t first = event.text.find_first_not_of(" :");
    return first == std::string::npos ? std::string() : ": " + printable(event.text.substr(first));
}

[[nodiscard]] std::string size_text(const LogEvent& event, std::string_view before) {
    return event.bytes ? std::string(before) + to_string(ByteCount(*event.bytes)) : std::string();
}

/// What happened, without how often. `who` is the device, or empty.
[[nodiscard]] std::string event_text(const LogGroup& group, const std::string& who) {
    const LogEvent& event = group.first;
    const std::string subject = who.empty() ? "" : who + ": ";
    switch (event.kind) {
    case Kind::fault:
        if (event.record.reason == Reason::interrupt)
            return who + " sent an interrupt message that was blocked";
        if (event.record.reason == Reason::events_lost)
            return "Faults were lost";
        return who + ' ' + std::string(past_verb(event.record.access)) + ' ' + place(group);
    case Kind::map_failure:
        return subject + "mapping" + size_text(event, " ") +
               (event.record.where.empty()
                    ? ""
                    : " at " + hexadecimal(event.record.where.start().value())) +
               " for DMA failed" + error_text(event);
    case Kind::memory_limit:
        return subject + "VFIO could not pin memory: the process may lock" +
               size_text(event, " at most ");
    case Kind::device_refused:
        return subject + "not given to a program or guest" + with_text(event);
    case Kind::invalidation:
        return who.empty() ? "An invalidation of the IOMMU did not finish"
                           : who + " did not answer an invalidation of its translation cache";
    case Kind::bounce_full:
        return subject + "no bounce buffer" + size_text(event, " of ") + " was free";
    case Kind::isolated:
        return subject + "cut off from the machine" + with_text(event);
    case Kind::driver_error:
    case Kind::unit_error:
    case Kind::unit_refused:
    default:
        return subject + printable(event.text.empty() ? std::string(name(event.kind)) : event.text);
    }
}

[[nodiscard]] std::string verdict_text(Verdict verdict) {
    switch (verdict) {
    case Verdict::harmless:
        return "harmless: you may ignore it";
    case Verdict::not_started:
        return "nothing is damaged, but the device cannot be used in this way";
    case Verdict::device_unusable:
        return "the device fails, or will: do not ignore it";
    case Verdict::data_at_risk:
        break;
    }
    return "data at risk: do not ignore it";
}

[[nodiscard]] std::string reported_by(const LogEvent& event) {
    std::string text(maker(event.origin));
    if (!event.unit.empty())
        text += ' ' + printable(event.unit);
    if (event.record.code)
        text += ", code " + hexadecimal(*event.record.code);
    if (const std::string_view reason = because(event.record.reason, event.origin); !reason.empty())
        text += ": " + std::string(reason);
    return text;
}

/// Most runs of addresses in a text answer.
constexpr std::size_t most_runs = 6;

class Lines {
  public:
    explicit Lines(Colour colour) : colour_(colour) {}

    void heading(const std::string& text) { text_ += strong(text) + '\n'; }

    void add(std::string_view label, const std::string& text) {
        if (text.empty())
            return;
        text_ += "  ";
        text_ += label;
        text_.append(13 - label.size(), ' ');
        text_ += text + '\n';
    }

    [[nodiscard]] std::string take() { return std::move(text_); }

    [[nodiscard]] std::string strong(const std::string& text) const {
        return colour_ == Colour::ansi ? "\033[1m" + text + "\033[0m" : text;
    }

  private:
    Colour colour_;
    std::string text_;
};

void add_addresses(Lines& lines, const LogGroup& group) {
    const std::vector<AddressRun> runs = group.addresses.runs();
    if (runs.size() < 2)
        return;
    for (std::size_t at = 0; at < std::min(runs.size(), most_runs); ++at)
        lines.add(at == 0 ? "addresses" : "", run_text(runs[at]));
    if (runs.size() > most_runs)
        lines.add("", "and " + with_commas(runs.size() - most_runs) + " more");
    if (group.addresses.left_out() != 0)
        lines.add("", "and " + with_commas(group.addresses.left_out()) + " at further addresses");
}

} // namespace

std::string printable(std::string text) {
    for (char& each : text)
        if (static_cast<unsigned char>(each) < 0x20 || each == 0x7f)
            each = '?';
    return text;
}

std::string with_commas(std::uint64_t number) {
    std::string text = std::to_string(number);
    for (std::size_t at = text.size(); at > 3;)
        text.insert(at -= 3, 1, ',');
    return text;
}

std::string next_step(const KnownCause& cause, const LogEvent& event) {
    constexpr std::string_view word = "{device}";
    const std::string device = device_name(event);
    std::string text(cause.next);
    for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at))
        text.replace(at, word.size(), device.empty() ? "DEVICE" : device);
    return text;
}

std::string what_happened(const LogGroup& group, const LogContext& context) {
    std::string who = device_name(group.first);
    if (const std::string driver = driver_of(group, context); !driver.empty() && !who.empty())
        who += " (" + printable(driver) + ')';
    return event_text(group, who) + how_often(group);
}

std::string what_lies_there(const LogGroup& group, const LogContext& context) {
    if (group.addresses.kept().empty())
        return {};
    const std::uint64_t address = *group.addresses.kept().begin();
    if (address >= 0xfee0'0000 && address <= 0xfeef'ffff)
        return "x86 interrupt messages";
    // 40 bits, or sign-extended
    const std::uint64_t above = address >> 40;
    const std::uint64_t low = address & 0xff'ffff'ffff;
    const bool may_be_amd = group.first.origin == Origin::amd || group.first.origin == Origin::xen;
    if (may_be_amd && low >= 0xfd'f800'0000 && low <= 0xfd'ffff'ffff &&
        (above == 0 || above == 0xff'ffff))
        return "AMD's interrupt and end-of-interrupt messages";
    if (address >> 48 != 0)
        return "a CPU virtual address, or no address at all";
    const std::string what = context.at(address);
    return what.empty() ? what : printable(what) + ", if it is a physical address";
}

std::string text_answer(const LogGroup& group, const LogContext& context, Colour colour) {
    const KnownCause& cause = likeliest_cause(group, context);
    Lines lines(colour);
    lines.heading(what_happened(group, context));
    lines.add("reported by", reported_by(group.first));
    lines.add("requester", printable(requester_note(group.first, context)));
    if (const std::optional<Source> function = context.function_of(group.first))
        if (const DeviceFacts* const facts = context.device(*function))
            lines.add("device", printable(facts->description));
    add_addresses(lines, group);
    lines.add("lies in", what_lies_there(group, context));
    lines.add("verdict", lines.strong(verdict_text(cause.verdict)));
    lines.add("likely cause", std::string(cause.cause));
    lines.add("next", next_step(cause, group.first));
    lines.add("helps", std::string(cause.helps));
    lines.add("fix", std::string(cause.fix));
    lines.add("source", std::string(cause.source) + " [" + std::string(cause.id) + ']');
    return lines.take();
}

} // namespace moat::fault
