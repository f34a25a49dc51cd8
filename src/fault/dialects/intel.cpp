// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VT-d of Linux: drivers/iommu/intel/dmar.c, iommu.c, irq_remapping.c. Codes: Intel VT-d
// specification, chapter 7.1.4 "Fault Conditions"; descriptors: 6.5.2; fault status: 11.4.7.1.
#include "fault/text_cursor.hpp"
#include "rows.hpp"

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

/// The reasons of scalable mode, from `first` to `last`; chapter 7.1.4, table of "S" conditions.
struct Reasons {
    std::uint8_t first;
    std::uint8_t last;
    Reason reason;
};

constexpr std::array<Reasons, 43> intel_reasons = {{
    {0x01, 0x03, Reason::not_attached},    // root or context entry absent, or invalid
    {0x04, 0x04, Reason::address_size},    // beyond the guest address width
    {0x05, 0x06, Reason::permission},      // no write or read permission, or an empty entry
    {0x07, 0x09, Reason::table_access},    // a paging table, the root, a context table
    {0x0a, 0x0c, Reason::malformed_table}, // reserved bits: root, context, paging entry
    {0x0d, 0x0d, Reason::bad_request},     // translated or translation requests are blocked
    {0x20, 0x2f, Reason::interrupt},       // interrupt remapping, 5.1.4
    {0x30, 0x30, Reason::table_access},    // root-table address
    {0x31, 0x32, Reason::bad_request},     // the translation-table mode forbids the request
    {0x38, 0x38, Reason::table_access},    // root entry
    {0x39, 0x39, Reason::not_attached},
    {0x3a, 0x3a, Reason::malformed_table},
    {0x40, 0x40, Reason::table_access}, // context entry
    {0x41, 0x41, Reason::not_attached},
    {0x42, 0x43, Reason::malformed_table},
    {0x44, 0x44, Reason::bad_request},  // the Device-TLB is not enabled
    {0x45, 0x46, Reason::pasid},        // PASIDs are not enabled, or it is too large
    {0x47, 0x47, Reason::bad_request},  // page requests are not enabled
    {0x48, 0x48, Reason::pasid},        // the PASID of requests without one
    {0x50, 0x50, Reason::table_access}, // PASID directory entry
    {0x51, 0x51, Reason::pasid},
    {0x52, 0x52, Reason::malformed_table},
    {0x58, 0x58, Reason::table_access}, // PASID table entry
    {0x59, 0x59, Reason::pasid},
    {0x5a, 0x5b, Reason::malformed_table},
    {0x5c, 0x5d, Reason::permission},   // execute or supervisor requests are not enabled
    {0x70, 0x70, Reason::table_access}, // first-level paging entry
    {0x71, 0x71, Reason::not_present},
    {0x72, 0x72, Reason::malformed_table},
    {0x73, 0x73, Reason::table_access}, // first-level PML4
    {0x74, 0x74, Reason::address_size}, // a nested entry's address is too wide
    {0x75, 0x77, Reason::permission},   // of a nested first-level entry: read, read, write
    {0x78, 0x78, Reason::table_access}, // second-level paging entry
    {0x79, 0x79, Reason::permission},   // or an empty entry
    {0x7a, 0x7a, Reason::malformed_table},
    {0x7b, 0x7b, Reason::table_access},    // second-level table pointer
    {0x7c, 0x7c, Reason::malformed_table}, // accessed and dirty bits without snooping
    {0x80, 0x80, Reason::address_size},    // not canonical
    {0x81, 0x82, Reason::permission},      // user privilege, execute
    {0x83, 0x84, Reason::address_size},
    {0x85, 0x86, Reason::permission},  // write, read
    {0x87, 0x87, Reason::bad_request}, // in the interrupt range
    {0x90, 0x90, Reason::malformed_table},
}};

[[nodiscard]] Reason reason_of_intel_code(std::uint64_t code) {
    for (const Reasons& each : intel_reasons)
        if (code >= each.first && code <= each.last)
            return each.reason;
    return Reason::unknown;
}

/// The source of an invalidation error: 0 and all ones stand for none.
void set_invalidation_source(LogEvent& event, std::uint64_t sid) {
    sid &= 0xffff;
    if (sid != 0 && sid != 0xffff)
        event.record.source = Source::requester(static_cast<std::uint16_t>(sid));
}

void interpret_invalidation_sid(LogEvent& event) {
    if (const auto sid = event.number("sid"))
        set_invalidation_source(event, *sid);
}

/// Device-TLB descriptors name their device: bits 47..32, or 31..16 with a PASID.
void interpret_descriptor(LogEvent& event) {
    for (const std::string_view name : {"qw0", "prior_qw0"}) {
        const auto qw0 = event.number(name);
        if (!qw0 || event.record.source.kind() == Source::Kind::pci)
            continue;
        if ((*qw0 & 0xf) == 3)
            set_invalidation_source(event, *qw0 >> 32);
        else if ((*qw0 & 0xf) == 8)
            set_invalidation_source(event, *qw0 >> 16);
    }
}

/// Faults pend, or overflowed: detail of the lines that follow. Bits 4 to 6 are errors of the
/// invalidation queue.
void interpret_fault_status(LogEvent& event) {
    const std::uint64_t status = event.number("status").value_or(0);
    event.record.code = status;
    if ((status & 0x40) != 0)
        event.text = "invalidation time-out";
    else if ((status & 0x20) != 0)
        event.text = "invalidation completion error";
    else if ((status & 0x10) != 0)
        event.text = "invalidation queue error";
    else if ((status & 0x01) != 0)
        event.text = "fault overflow";
    if ((status & 0x70) == 0)
        return;
    event.kind = Kind::invalidation;
    event.record.reason = Reason::invalidation;
}

void interpret_frame(LogEvent& event) {
    event.text = "two mappings of one page";
    const std::uint64_t frame = event.number("frame").value_or(0);
    if (frame < std::uint64_t{1} << 52) {
        event.record.where = page_at(frame << 12);
        event.record.precision = Precision::page;
    }
}

constexpr std::array intel_rows = {
    // dmar.c, dmar_fault_do_one, as people retype it
    Row{.pattern = "DMA {access}{? {pasid}?}{?]?} Request device {?[?}{pci}{?]?} fault addr {page} "
                   "PTE {text}",
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    Row{.pattern = "DMA {access}{? {pasid}?}{?]?} Request device {?[?}{pci}{?]?} fault addr {page} "
                   "reason {code} {text}",
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    // since Linux 2.6, with and without PASIDs, in one line or two
    Row{.pattern = "[DMA {access}{? {pasid}?}] Request device [{?[?}{pci}]{? PASID {pasid}?} fault "
                   "addr {page}{? DMAR:?}{? [fault reason {code}] {text}?}",
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    Row{.pattern = "[INTR-REMAP] Request device [{?[?}{pci}] fault index {hex:index}{? DMAR:?}"
                   "{? [fault reason {code}] {text}?}",
        .reason = Reason::interrupt,
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    Row{.pattern = "INTR-REMAP: Request device [{?[?}{pci}] fault index {hex:index}{? INTR-REMAP:?}"
                   "{? [fault reason {code}] {text}?}",
        .reason = Reason::interrupt,
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    Row{.pattern = "[INTR-REMAP] Request device [{?[?}{pci}] fault index {*} [fault reason {code}] "
                   "{text}",
        .reason = Reason::interrupt,
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    // the same without its beginning, or without an address
    Row{.pattern = "Request device [{pci}]{? PASID {pasid}?} fault addr {page}{? DMAR:?}"
                   "{? [fault reason {code}] {text}?}",
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    Row{.pattern =
            "[DMA {access}{? {pasid}?}] Request device [{pci}]{? PASID {pasid}?} fault addr {*} "
            "PTE {text}",
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    Row{.pattern =
            "[DMA {access}{? {pasid}?}] Request device [{pci}]{? PASID {pasid}?} fault addr {*} "
            "[fault reason {code}] {text}",
        .begins = Message::intel,
        .interpret = interpret_intel_reason},
    Row{.pattern = "DMAR: [fault reason {code}] {text}",
        .continues = Message::intel,
        .interpret = interpret_intel_reason},
    Row{.pattern = "[fault reason {code}] {text}",
        .kind = Kind::detail,
        .continues = Message::intel,
        .interpret = interpret_intel_reason},
    // dmar.c, dmar_fault
    Row{.pattern = "DRHD: handling fault status reg {hex:status}",
        .kind = Kind::detail,
        .begins = Message::queue,
        .continues = Message::queue,
        .interpret = interpret_fault_status},
    // dmar.c, qi_dump_fault
    Row{.pattern = "VT-d detected Invalidation Queue Error: Reason {hex:reason}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .begins = Message::queue,
        .continues = Message::queue},
    Row{.pattern = "VT-d detected Invalidation {*} Error: SID {hex:sid}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .begins = Message::queue,
        .continues = Message::queue,
        .interpret = interpret_invalidation_sid},
    Row{.pattern = "QI HEAD: {text} qw0 = {hex:qw0}{?, qw1 = {hex:qw1}?}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .begins = Message::queue,
        .continues = Message::queue,
        .interpret = interpret_descriptor},
    Row{.pattern = "QI PRIOR: {*} qw0 = {hex:prior_qw0}{?, qw1 = {hex:prior_qw1}?}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .begins = Message::queue,
        .continues = Message::queue,
        .interpret = interpret_descriptor},
    // dmar.c, qi_check_fault
    Row{.pattern = "Invalidation Queue Error (IQE) cleared",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .continues = Message::queue},
    Row{.pattern = "Invalidation Time-out Error (ITE) cleared",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .continues = Message::queue},
    Row{.pattern = "Invalidation Completion Error (ICE) cleared",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .continues = Message::queue},
    // iommu.c, dmar_fault_dump_ptes and pgtable_walk
    Row{.pattern = "Dump {unit} table entries for IOVA {addr}",
        .kind = Kind::detail,
        .begins = Message::table},
    Row{.pattern = "scalable mode root entry: hi {hex:root_high}, low {hex:root}",
        .kind = Kind::detail,
        .begins = Message::table,
        .continues = Message::table},
    Row{.pattern = "root entry: {hex:root}",
        .kind = Kind::detail,
        .begins = Message::table,
        .continues = Message::table},
    Row{.pattern = "context entry: hi {hex:context_high}, low {hex:context}",
        .kind = Kind::detail,
        .begins = Message::table,
        .continues = Message::table},
    Row{.pattern = "pasid dir entry: {hex:pasid_directory}",
        .kind = Kind::detail,
        .begins = Message::table,
        .continues = Message::table},
    Row{.pattern = "pasid table entry[{*}]: {hex:pasid_entry}",
        .kind = Kind::detail,
        .begins = Message::table,
        .continues = Message::table},
    Row{.pattern = "pte level: {number:level}, pte value: {hex:pte}",
        .kind = Kind::detail,
        .begins = Message::table,
        .continues = Message::table},
    Row{.pattern = "PTE not present at level {number:absent_level}",
        .kind = Kind::detail,
        .continues = Message::table},
    Row{.pattern = "page table not present at level {number:absent_level}",
        .kind = Kind::detail,
        .continues = Message::table},
    Row{.pattern = "DMAR: {text} is not present",
        .kind = Kind::detail,
        .continues = Message::table},
    // iommu.c, intel_iommu_map and intel_iommu_prepare_identity... of several versions
    Row{.pattern = "iommu width ({number:width}) is not sufficient for the mapped address ({addr})",
        .kind = Kind::map_failure,
        .reason = Reason::address_size},
    // iommu.c, __domain_mapping
    Row{.pattern = "DMA PTE for vPFN {hex:frame} already set (to {hex:old} not {hex:new})",
        .kind = Kind::driver_error,
        .interpret = interpret_frame},
    // iommu.c, dmar_parse_one_rmrr, and Xen's words are others
    Row{.pattern = "RMRR base: {addr} end: {last}", .kind = Kind::reserved_region},
    Row{.pattern = "No firmware reserved region can cover this RMRR [{addr}-{last}]",
        .kind = Kind::reserved_region},
    Row{.pattern = "RMRR [{addr}-{last}]{text}", .kind = Kind::reserved_region},
    Row{.pattern = "Setting identity map for device {pci} [{addr} - {last}]",
        .kind = Kind::reserved_region},
    Row{.pattern = "Setting identity map for device {driver} {pci} [{addr} - {last}]",
        .kind = Kind::reserved_region},
    // iommu.c, device_rmrr_is_relaxable's caller
    Row{.pattern = "Device is ineligible for IOMMU domain attach due to platform RMRR",
        .kind = Kind::device_refused,
        .head = Head::device},
    // dmar.c, alloc_iommu, warn_invalid_dmar; iommu.c, intel_iommu_init, init_dmars
    Row{.pattern = "Your BIOS is broken; {text}", .kind = Kind::unit_refused},
    Row{.pattern = "DMAR hardware is malfunctioning",
        .kind = Kind::unit_error,
        .reason = Reason::hardware},
    Row{.pattern = "ioapic {number:ioapic} has no mapping iommu, {text}",
        .kind = Kind::unit_refused},
    Row{.pattern = "Failed to copy translation tables from previous kernel for {unit}",
        .kind = Kind::unit_refused},
    Row{.pattern = "Copied translation tables from previous kernel for {unit}",
        .kind = Kind::setting},
    Row{.pattern = "Translation already enabled - trying to copy translation structures",
        .kind = Kind::setting},
    Row{.pattern = "Translation was enabled for {unit} but we are not in kdump mode",
        .kind = Kind::setting},
    Row{.pattern = "DMAR: {unit}: Translation already enabled{text}", .kind = Kind::setting},
    Row{.pattern = "Failed to {text}", .kind = Kind::unit_refused},
    Row{.pattern = "Cannot alloc {text}", .kind = Kind::unit_refused},
    Row{.pattern = "Allocating domain for {device} failed", .kind = Kind::unit_refused},
    Row{.pattern = "Domain initialization failed", .kind = Kind::unit_refused},
    Row{.pattern = "Initialization failed", .kind = Kind::unit_refused},
    Row{.pattern = "No RMRR found", .kind = Kind::note},
    Row{.pattern = "No ATSR found", .kind = Kind::note},
    Row{.pattern = "No SATC found", .kind = Kind::note},
    Row{.pattern = "ATSR flags: {hex:flags}", .kind = Kind::note},
    Row{.pattern = "SATC flags: {hex:flags}", .kind = Kind::note},
    Row{.pattern = "RHSA base: {hex:base}", .kind = Kind::note},
    Row{.pattern = "ANDD device: {hex:number} name: {device}", .kind = Kind::note},
    Row{.pattern = "Host address width {number:width}", .kind = Kind::setting},
    Row{.pattern = "DRHD base: {hex:base} flags: {hex:flags}", .kind = Kind::setting},
    Row{.pattern = "reg_base_addr {hex:base} ver {*} cap {hex:cap} ecap {hex:ecap}",
        .kind = Kind::setting,
        .head = Head::unit},
    Row{.pattern = "IOAPIC id {number:ioapic} under DRHD base {hex:base} IOMMU {unit}",
        .kind = Kind::note},
    Row{.pattern = "HPET id {number:hpet} under DRHD base {hex:base}", .kind = Kind::note},
    Row{.pattern = "Queued invalidation will be enabled {text}", .kind = Kind::setting},
    Row{.pattern = "Enabled IRQ remapping in {text} mode", .kind = Kind::setting},
    Row{.pattern = "x2apic {text}", .kind = Kind::setting},
    Row{.pattern = "Using Queued invalidation", .kind = Kind::setting, .head = Head::unit},
    Row{.pattern = "Using Register based invalidation", .kind = Kind::setting, .head = Head::unit},
    Row{.pattern = "DMAR: IOMMU enabled{text}", .kind = Kind::setting},
    Row{.pattern = "DMAR: IOMMU disabled{text}", .kind = Kind::setting},
    Row{.pattern = "Intel-IOMMU: {text}", .kind = Kind::setting},
    Row{.pattern = "Intel(R) Virtualization Technology for Directed I/O", .kind = Kind::setting},
    Row{.pattern = "IOMMU feature {text} inconsistent", .kind = Kind::note},
    Row{.pattern = "IOMMU batching disallowed{text}", .kind = Kind::setting},
    Row{.pattern = "Disable batched IOTLB flush{text}", .kind = Kind::setting},
    Row{.pattern = "Disabling IOMMU for graphics on this chipset", .kind = Kind::setting},
    Row{.pattern = "Disable GFX device mapping", .kind = Kind::setting},
    Row{.pattern = "Passing through {text}", .kind = Kind::setting},
    Row{.pattern = "Forcing write-buffer flush capability", .kind = Kind::setting},
    Row{.pattern = "Skip IOMMU disabling for graphics", .kind = Kind::note},
    Row{.pattern = "Prepare 0-16MiB unity mapping for LPC", .kind = Kind::note},
    Row{.pattern = "Hardware identity mapping for device {device}", .kind = Kind::note},
    Row{.pattern = "Software identity mapping for device {device}", .kind = Kind::note},
    Row{.pattern = "Ignoring identity map for HW passthrough device {device}", .kind = Kind::note},
    Row{.pattern = "Device uses a private identity domain",
        .kind = Kind::note,
        .head = Head::device},
    Row{.pattern = "Device uses a private dma domain", .kind = Kind::note, .head = Head::device},
    Row{.pattern = "Setting RMRR:", .kind = Kind::note},
    Row{.pattern = "Recover IOMMU{text}", .kind = Kind::note},
    Row{.pattern = "DMAR-IR: {text}", .kind = Kind::note},
    Row{.pattern = "BIOS vendor: {text}", .kind = Kind::note},
    Row{.pattern = "PCI-DMA: Intel{text}", .kind = Kind::setting},
    Row{.pattern = "dmar_fault: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "ACPI: DMAR {text}", .kind = Kind::note},
    Row{.pattern = "Reserving DMAR table memory{text}", .kind = Kind::note},
    Row{.pattern = "DMAR: dmar{text}", .kind = Kind::note},
};

} // namespace

void interpret_intel_reason(LogEvent& event) {
    Record& record = event.record;
    if (event.text.starts_with("Read access") || event.text.starts_with("Write access"))
        record.reason = Reason::permission; // without a number
    if (!record.code)
        return;
    record.reason = reason_of_intel_code(*record.code);
    if (record.reason == Reason::interrupt)
        record.access = Access::unknown;
}

constinit const Dialect intel_dialect = {Origin::intel,
                                         "dmar|intr-remap|request device|fault reason|vt-d|qi "
                                         "head|qi prior|rmrr|iommu width|intel-iommu|"
                                         "vpfn|directed i/o|drhd|table entry",
                                         intel_rows};

} // namespace moat::fault
