// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AMD-Vi of Linux: drivers/iommu/amd/iommu.c (iommu_print_event and its callees) and init.c.
// Events: AMD I/O Virtualization Technology specification (48882), 2.5 "Event Logging".
#include "moat/core/bits.hpp"

#include "fault/text_cursor.hpp"
#include "rows.hpp"

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

// Bits of the printed flags: 27..16 of an event's second double word.
constexpr std::uint64_t amd_interrupt = bit(3);
constexpr std::uint64_t amd_present = bit(4);
constexpr std::uint64_t amd_write = bit(5);
constexpr std::uint64_t amd_permission = bit(6);
constexpr std::uint64_t amd_reserved = bit(7);
constexpr std::uint64_t amd_translation = bit(8);

/// 2.5.9 INVALID_DEVICE_REQUEST, field TYPE.
constexpr std::array<std::string_view, 8> request_types = {
    "read or non-posted write in the interrupt range",
    "pretranslated request although the device table forbids it",
    "port I/O although the device table forbids it",
    "posted write to invalid address",
    "invalid read or non-posted write",
    "posted write to the interrupt or EOI range although the device table forbids it",
    "posted write to a reserved interrupt address",
    "invalid transaction to the system-management range"};

void interpret_page_fault(LogEvent& event) {
    Record& record = event.record;
    const std::uint64_t flags = *record.code;
    record.access = Access::unknown;
    if ((flags & amd_interrupt) != 0) {
        record.reason = Reason::interrupt;
        return;
    }
    record.reason = Reason::not_present;
    if ((flags & amd_reserved) != 0)
        record.reason = Reason::malformed_table;
    else if ((flags & amd_present) != 0)
        record.reason = Reason::permission;
    // RW has a meaning only for a present page and a transaction.
    if ((flags & amd_present) != 0 && (flags & amd_translation) == 0)
        record.access = (flags & amd_write) != 0 ? Access::write : Access::read;
    if ((flags & amd_permission) != 0 && event.text == "IO_PAGE_FAULT")
        event.text = "IO_PAGE_FAULT: mapped, but not for this access";
}

void interpret_request(LogEvent& event) {
    Record& record = event.record;
    const std::size_t type = *record.code >> 9 & 7;
    event.text = "INVALID_DEVICE_REQUEST: ";
    event.text += request_types[type];
    record.access = type == 3 || type == 5 || type == 6 ? Access::write : Access::unknown;
    if ((*record.code & amd_translation) != 0)
        record.access = Access::unknown;
}

[[nodiscard]] bool is_event(const LogEvent& event, std::string_view name) {
    return event.text.starts_with(name);
}

void interpret_amd(LogEvent& event, std::string_view name) {
    if (event.text.empty() || is_event(event, name))
        event.text = name;
    interpret_amd_flags(event);
}

template <std::size_t Index>
struct Named {
    static constexpr std::array<std::string_view, 11> names = {
        "IO_PAGE_FAULT",           "ILLEGAL_DEV_TABLE_ENTRY", "DEV_TAB_HARDWARE_ERROR",
        "PAGE_TAB_HARDWARE_ERROR", "IOTLB_INV_TIMEOUT",       "INVALID_DEVICE_REQUEST",
        "INVALID_PPR_REQUEST",     "RMP_PAGE_FAULT",          "RMP_HW_ERROR",
        "COMMAND_HARDWARE_ERROR",  "ILLEGAL_COMMAND_ERROR"};

    static void interpret(LogEvent& event) { interpret_amd(event, names[Index]); }
};

constexpr std::array amd_rows = {
    Row{.pattern = "Event logged [ IO_PAGE_FAULT{? device={pci}?}{? pasid={pasid}?}{? "
                   "domain={domain}?}{? pasid={pasid}?} "
                   "address={addr}{? flags={hcode}?}{?]?}",
        .reason = Reason::not_present,
        .head = Head::device,
        .interpret = Named<0>::interpret},
    Row{.pattern = "Event logged [ ILLEGAL_DEV_TABLE_ENTRY device={pci}{? pasid={pasid}?} "
                   "address={addr}{? flags={hcode}?}",
        .reason = Reason::malformed_table,
        .head = Head::device,
        .begins = Message::amd,
        .interpret = Named<1>::interpret},
    Row{.pattern = "Event logged [ DEV_TAB_HARDWARE_ERROR device={pci}{? pasid={pasid}?} "
                   "address={hex:table}"
                   "{? flags={hcode}?}",
        .kind = Kind::unit_error,
        .reason = Reason::table_access,
        .head = Head::device,
        .interpret = Named<2>::interpret},
    Row{.pattern = "Event logged [ PAGE_TAB_HARDWARE_ERROR device={pci}{? "
                   "domain={domain}?}{? pasid={pasid}?} "
                   "address={addr}{? flags={hcode}?}",
        .kind = Kind::unit_error,
        .reason = Reason::table_access,
        .head = Head::device,
        .interpret = Named<3>::interpret},
    Row{.pattern = "Event logged [ IOTLB_INV_TIMEOUT device={pci}{? address={hex:command}?}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::device,
        .interpret = Named<4>::interpret},
    Row{.pattern = "Event logged [ INVALID_DEVICE_REQUEST device={pci}{? pasid={pasid}?} "
                   "address={addr}"
                   "{? flags={hcode}?}{? tag={hex:tag}?}",
        .reason = Reason::bad_request,
        .head = Head::device,
        .interpret = Named<5>::interpret},
    Row{.pattern = "Event logged [ INVALID_PPR_REQUEST device={pci}{? pasid={pasid}?} "
                   "address={addr}"
                   "{? flags={hcode}?}{? tag={hex:tag}?}",
        .reason = Reason::bad_request,
        .head = Head::device,
        .interpret = Named<6>::interpret},
    Row{.pattern = "Event logged [ RMP_PAGE_FAULT{? device={pci},?}{? device={pci}?} "
                   "vmg_tag={hex:vmg_tag}, gpa={addr}"
                   "{?, flags_rmp={hex:flags_rmp}?}{?, flags={hcode}?}",
        .reason = Reason::permission,
        .head = Head::device,
        .interpret = Named<7>::interpret},
    Row{.pattern = "Event logged [ RMP_HW_ERROR{? device={pci},?}{? device={pci}?} "
                   "vmg_tag={hex:vmg_tag}, "
                   "spa={hex:spa}{?, flags={hcode}?}",
        .kind = Kind::unit_error,
        .reason = Reason::hardware,
        .head = Head::device,
        .interpret = Named<8>::interpret},
    Row{.pattern = "Event logged [ COMMAND_HARDWARE_ERROR{? device={pci}?} "
                   "address={hex:command}{? flags={hcode}?}",
        .kind = Kind::unit_error,
        .reason = Reason::hardware,
        .head = Head::device,
        .interpret = Named<9>::interpret},
    Row{.pattern = "Event logged [ ILLEGAL_COMMAND_ERROR{? device={pci}?} address={hex:command}",
        .kind = Kind::unit_error,
        .reason = Reason::malformed_table,
        .head = Head::device,
        .begins = Message::amd,
        .interpret = Named<10>::interpret},
    Row{.pattern = "Event logged [ UNKNOWN{text}", .kind = Kind::unit_error, .head = Head::device},
    Row{.pattern = "Event logged [Device not attached to domain properly]",
        .reason = Reason::not_attached,
        .begins = Message::amd},
    Row{.pattern = "AMD-Vi: device={pci} domain={domain}",
        .kind = Kind::detail,
        .continues = Message::amd},
    // the same without its beginning
    Row{.pattern =
            "IO_PAGE_FAULT{? device={pci}?}{? domain={domain}?}{? pasid={pasid}?} address={addr}"
            "{? flags={hcode}?}{?]?}",
        .reason = Reason::not_present,
        .interpret = Named<0>::interpret},
    Row{.pattern = "INVALID_DEVICE_REQUEST device={pci}{? pasid={pasid}?} address={addr}{? "
                   "flags={hcode}?}",
        .reason = Reason::bad_request,
        .interpret = Named<5>::interpret},
    // dump_dte_entry, dump_command
    Row{.pattern = "AMD-Vi: DTE[{*}]: {hex:dte}",
        .kind = Kind::detail,
        .begins = Message::amd,
        .continues = Message::amd},
    Row{.pattern = "AMD-Vi: CMD[{*}]: {hex:command}",
        .kind = Kind::detail,
        .begins = Message::amd,
        .continues = Message::amd},
    // wait_on_sem, iommu_poll_events
    Row{.pattern = "IOMMU {unit}: Completion-Wait loop timed out",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation},
    Row{.pattern = "Completion-Wait loop timed out",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::device},
    Row{.pattern = "AMD-Vi: Command buffer timeout",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation},
    Row{.pattern = "AMD-Vi: No event written to event log",
        .kind = Kind::unit_error,
        .reason = Reason::hardware},
    Row{.pattern = "IOMMU Event log restarting", .reason = Reason::events_lost},
    Row{.pattern = "IOMMU event log overflow", .reason = Reason::events_lost},
    Row{.pattern = "IOMMU {*} log restarting", .reason = Reason::events_lost},
    Row{.pattern = "amd_iommu_int_thread: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "amd_iommu_report_page_fault: {count} callbacks suppressed",
        .kind = Kind::suppressed},
    Row{.pattern = "amd_iommu_{*}: {count} callbacks suppressed", .kind = Kind::suppressed},
    // init.c: check_ioapic_information, iommu_init_pci, init_iommu_one, amd_iommu_detect ...
    Row{.pattern = "AMD-Vi: IOAPIC[{number:ioapic}] not in IVRS table", .kind = Kind::unit_refused},
    Row{.pattern = "AMD-Vi: No southbridge IOAPIC found", .kind = Kind::unit_refused},
    Row{.pattern = "AMD-Vi: Disabling interrupt remapping{text}", .kind = Kind::unit_refused},
    Row{.pattern = "AMD-Vi: Failed {text}", .kind = Kind::unit_refused},
    Row{.pattern = "AMD-Vi: Unable to {text}", .kind = Kind::note},
    Row{.pattern = "AMD-Vi: Interrupt remapping enabled", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Interrupt remapping disabled", .kind = Kind::setting},
    Row{.pattern = "Found IOMMU {text}", .kind = Kind::setting},
    Row{.pattern = "Extended features{text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Virtual APIC enabled", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: X2APIC enabled", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Lazy IO/TLB flushing enabled", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: IO/TLB flush on unmap enabled", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Using {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Enabling IOMMU {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Initialized for Passthrough Mode", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Translation is already enabled - trying to copy translation structures",
        .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Copied {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: Re-enabled {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: IOMMU performance counters supported", .kind = Kind::note},
    Row{.pattern = "AMD-Vi: Applying {text}", .kind = Kind::note},
    Row{.pattern = "AMD-Vi: Force {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: AMD IOMMU {text}", .kind = Kind::note},
    Row{.pattern = "AMD-Vi: AMD IOMMUv2 {text}", .kind = Kind::note},
    Row{.pattern = "AMD-Vi: Setup of {text}", .kind = Kind::note},
    Row{.pattern = "AMD-Vi: IOMMU SNP support {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: V2 page table {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: PPR {text}", .kind = Kind::note},
    Row{.pattern = "AMD-Vi: ivrs, add {text}", .kind = Kind::note},
    Row{.pattern = "AMD-Vi: Ignoring {text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: PPR/NX/GT/{text}", .kind = Kind::setting},
    Row{.pattern = "AMD-Vi: [Firmware {text}", .kind = Kind::unit_refused},
    Row{.pattern = "AMD IOMMUv2 {text}", .kind = Kind::note},
    Row{.pattern = "Detected AMD IOMMU {text}", .kind = Kind::note},
    Row{.pattern = "amd_uncore{text}", .kind = Kind::note},
    Row{.pattern = "PCI-DMA: Using {text}", .kind = Kind::setting},
};

} // namespace

void interpret_amd_flags(LogEvent& event) {
    if (!event.record.code)
        return;
    if (is_event(event, "IO_PAGE_FAULT"))
        interpret_page_fault(event);
    else if (is_event(event, "INVALID_DEVICE_REQUEST"))
        interpret_request(event);
    // With RZ, the entry is present, and its bits are illegal.
    else if (is_event(event, "ILLEGAL_DEV_TABLE_ENTRY") && (*event.record.code & amd_reserved) == 0)
        event.record.reason = Reason::not_attached;
}

constinit const Dialect amd_dialect = {Origin::amd,
                                       "amd-vi|amd_iommu|io_page_fault|amd iommu|event "
                                       "logged|invalid_device_request|completion-wait|event log",
                                       amd_rows};

} // namespace moat::fault
