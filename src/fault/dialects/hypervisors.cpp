// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Xen: drivers/passthrough/vtd/iommu.c (iommu_page_fault_do_one), amd/iommu_init.c
// (parse_event_log_entry). FreeBSD: sys/x86/iommu/intel_fault.c, amd_event.c. OpenBSD:
// sys/dev/acpi/acpidmar.c (iommu_showfault, ivhd_show_event, ivhd_completion_wait).
#include "fault/text_cursor.hpp"
#include "rows.hpp"

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

/// The flags of an event that the line names.
void interpret_xen_amd(LogEvent& event) {
    if (event.text.empty())
        event.text = "IO_PAGE_FAULT";
    interpret_amd_flags(event);
}

/// FreeBSD prints bus, slot and function in decimal, and the requester ID.
void interpret_freebsd_fault(LogEvent& event) {
    if (!event.unit.empty())
        event.unit.insert(0, "DMAR");
    event.record.code = event.number("reason");
    event.record.access = event.number("type").value_or(0) != 0 ? Access::read : Access::write;
    interpret_intel_reason(event);
}

void interpret_freebsd_event(LogEvent& event) {
    constexpr std::array<std::string_view, 9> names = {"",
                                                       "ILLEGAL_DEV_TABLE_ENTRY",
                                                       "IO_PAGE_FAULT",
                                                       "DEV_TAB_HARDWARE_ERROR",
                                                       "PAGE_TAB_HARDWARE_ERROR",
                                                       "ILLEGAL_COMMAND_ERROR",
                                                       "COMMAND_HARDWARE_ERROR",
                                                       "IOTLB_INV_TIMEOUT",
                                                       "INVALID_DEVICE_REQUEST"};
    const std::uint64_t type = event.number("type").value_or(0);
    if (event.numbers.size() < 5 || type == 0 || type >= names.size())
        return;
    event.text = names[type];
    event.unit.insert(0, "amdiommu");
    Record& record = event.record;
    const std::uint64_t first = event.numbers[1].value;
    const std::uint64_t second = event.numbers[2].value;
    record.source = Source::requester(static_cast<std::uint16_t>(first & 0xffff));
    record.code = second >> 16 & 0xfff;
    record.where = byte_at(event.numbers[3].value | event.numbers[4].value << 32);
    record.precision = Precision::start;
    constexpr std::array<Reason, 9> reasons = {
        Reason::unknown,      Reason::malformed_table, Reason::not_present,
        Reason::table_access, Reason::table_access,    Reason::hardware,
        Reason::hardware,     Reason::invalidation,    Reason::bad_request};
    record.reason = reasons[type];
    interpret_amd_flags(event);
}

/// Reasons are VT-d's.
void interpret_openbsd_fault(LogEvent& event) {
    event.unit.insert(0, "iommu");
    event.record.code = event.number("reason");
    interpret_intel_reason(event);
}

/// "transaction, invalid level, no perm, write, present, memory". The direction has a meaning only
/// for a present page.
void interpret_openbsd_event(LogEvent& event) {
    const auto is = [&](std::string_view word) { return event.text.find(word) != event.text.npos; };
    Record& record = event.record;
    if (is("interrupt"))
        record.reason = Reason::interrupt;
    else if (is("reserved bit"))
        record.reason = Reason::malformed_table;
    else if (is("no perm"))
        record.reason = Reason::permission;
    if (is(" present") && !is("not present") && is("action"))
        record.access = is("write") ? Access::write : Access::read;
}

constexpr std::array xen_rows = {
    Row{.pattern = "DMAR:[DMA {access}] Request device [{pci}] fault addr {page}"
                   "{?, iommu reg = {hex:reg}?}",
        .begins = Message::xen,
        .interpret = interpret_intel_reason},
    Row{.pattern = "DMAR: reason {hcode} - {text}",
        .continues = Message::xen,
        .interpret = interpret_intel_reason},
    Row{.pattern = "DMAR:[fault reason {hcode}h] {text}",
        .continues = Message::xen,
        .interpret = interpret_intel_reason},
    Row{.pattern = "INTR-REMAP: Request device [{pci}] fault index {hex:index}"
                   "{?, iommu reg = {hex:reg}?}",
        .reason = Reason::interrupt,
        .begins = Message::xen},
    Row{.pattern = "INTR-REMAP: reason {hcode} - {text}",
        .continues = Message::xen,
        .interpret = interpret_intel_reason},
    Row{.pattern = "INTR-REMAP:[fault reason {hcode}h] {text}",
        .continues = Message::xen,
        .interpret = interpret_intel_reason},
    Row{.pattern = "Primary Pending Fault", .kind = Kind::detail},
    Row{.pattern = "Fault Overflow", .kind = Kind::detail},
    Row{.pattern = "QI dev wait descriptor taking too long",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation},
    Row{.pattern = "Queue invalidate wait descriptor timed out",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation},
    Row{.pattern = "timed out waiting for {text}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation},
    Row{.pattern = "IO_PAGE_FAULT: {pci} d{ddomain} addr {addr} flags {hcode}",
        .reason = Reason::not_present,
        .interpret = interpret_xen_amd},
    Row{.pattern = "IO_PAGE_FAULT: domain = {ddomain}, device id = {rid}, fault address = {addr}"
                   "{?, flags = {hcode}?}",
        .reason = Reason::not_present,
        .interpret = interpret_xen_amd},
    Row{.pattern = "IO_PAGE_FAULT: domain:{ddomain} device:{pci} addr:{addr}{? flags:{hcode}?}",
        .reason = Reason::not_present,
        .interpret = interpret_xen_amd},
    Row{.pattern = "IO_PAGE_FAULT: {*} addr {addr} flags {hcode}",
        .reason = Reason::not_present,
        .interpret = interpret_xen_amd},
    Row{.pattern = "AMD-Vi: {text}: {pci} d{ddomain} addr {addr} flags {hcode}",
        .reason = Reason::bad_request,
        .interpret = interpret_amd_flags},
    Row{.pattern = "AMD-Vi: {text} {hex:word0} {hex:word1} {hex:word2} {hex:word3}",
        .kind = Kind::unit_error},
    Row{.pattern = "Completion-Wait loop timed out",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation},
    Row{.pattern = "Unhandled context fault: iova={addr}, fsynr={hex:fsynr}, cb={ddomain}",
        .reason = Reason::not_present,
        .head = Head::unit},
    Row{.pattern = "RMRR{*}[{addr},{last}]", .kind = Kind::reserved_region},
    Row{.pattern = "It's disallowed to assign {pci} with shared RMRR",
        .kind = Kind::device_refused},
    Row{.pattern = "I/O virtualisation {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: IOMMU {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Disabled{text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Using {text}", .kind = Kind::setting},
    Row{.pattern = "Intel VT-d {text}", .kind = Kind::setting},
    Row{.pattern = "[VT-D]{text}", .kind = Kind::note, .may_wrap = true},
    Row{.pattern = "Command line: {text}", .kind = Kind::setting},
};

constexpr std::array freebsd_rows = {
    Row{.pattern =
            "DMAR{unit}: {*}pci{*} sid {rid} fault acc {hex:type} adt {hex:translation} reason "
            "{hex:reason} addr {addr}",
        .interpret = interpret_freebsd_fault},
    Row{.pattern =
            "sid {rid} fault acc {hex:type} adt {hex:translation} reason {hex:reason} addr {addr}",
        .interpret = interpret_freebsd_fault},
    Row{.pattern = "Fault Overflow", .reason = Reason::events_lost, .head = Head::unit},
    Row{.pattern = "Invalidation timed out",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern = "Invalidation Time-Out",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern =
            "amdiommu{unit}: event type {hex:type} {hex:word0} {hex:word1} {hex:word2} {hex:word3}",
        .interpret = interpret_freebsd_event},
    Row{.pattern = "amdiommu{unit}: {text}", .kind = Kind::note},
};

constexpr std::array openbsd_rows = {
    // iommu_showfault: "read" or "write"
    Row{.pattern =
            "dmar: {pci} {access} error at {page} fr:{number:reason} [{text}] iommu:{unit} [",
        .interpret = interpret_openbsd_fault},
    // ivhd_show_event: the bits of the event as words, on the next line
    Row{.pattern = "IOMMU Error[{*}]: io page fault dev={pci} did={domain} addr={addr} trans{text}",
        .reason = Reason::not_present,
        .interpret = interpret_openbsd_event},
    Row{.pattern = "IOMMU Error[{*}]: io page fault dev={pci} did={domain} addr={addr}",
        .reason = Reason::not_present,
        .may_wrap = true},
    Row{.pattern = "IOMMU Error[{*}]: illegal dev table entry dev={pci} addr={addr} trans{text}",
        .reason = Reason::malformed_table,
        .interpret = interpret_openbsd_event},
    Row{.pattern = "IOMMU Error[{*}]: {*} table hardware error dev={pci} addr={addr}",
        .kind = Kind::unit_error,
        .reason = Reason::table_access},
    Row{.pattern = "IOMMU Error[{*}]: invalid device request dev={pci} addr={addr} flag={hcode}",
        .reason = Reason::bad_request},
    Row{.pattern = "IOMMU Error[{*}]: iotlb invalidation timeout dev={pci} address={hex:command}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation},
    Row{.pattern = "IOMMU Error[{*}]: {text} addr={hex:command}",
        .kind = Kind::unit_error,
        .reason = Reason::hardware},
    Row{.pattern = "IOTLB page invalidation timeout",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern = "completion wait timeout",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern = "acpidmar{*}: {text}", .kind = Kind::note},
};

} // namespace

constinit const Dialect xen_dialect = {Origin::xen, "(xen)|[vt-d]|io_page_fault: ", xen_rows};

constinit const Dialect freebsd_dialect = {Origin::freebsd, "fault acc|amdiommu|fault overflow",
                                           freebsd_rows};

constinit const Dialect openbsd_dialect = {
    Origin::openbsd, "acpidmar|iommu error[| error at |invalidation timeout|wait timeout",
    openbsd_rows};

} // namespace moat::fault
