// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// IOMMUs on chips, as Linux prints them: drivers/iommu/*-iommu.c, apple-dart.c, tegra-smmu.c,
// ipmmu-vmsa.c, and drivers/memory/tegra/mc.c; RISC-V and virtio. Causes of RISC-V: the IOMMU
// architecture specification, "Fault record CAUSE field encodings".
#include "fault/text_cursor.hpp"
#include "rows.hpp"

#include <string>

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

[[nodiscard]] bool says(const LogEvent& event, std::string_view word) {
    return event.text.find(word) != event.text.npos;
}

/// The reason in Exynos' and Tegra's words.
void interpret_reason_words(LogEvent& event) {
    if (says(event, "PERMISSION") || says(event, "PROTECTION") || says(event, "SECURITY") ||
        says(event, "ACCESS") || says(event, "Security") || says(event, "[R") || says(event, "[-W"))
        event.record.reason = Reason::permission;
    else if (says(event, "BUS ERROR") || says(event, "TABLE WALK"))
        event.record.reason = Reason::table_access;
    else if (says(event, "MULTI-HIT") || says(event, "MULTI"))
        event.record.reason = Reason::hardware;
    else
        event.record.reason = Reason::not_present;
}

/// "(SMMU translation error [--S])": R and W show what a mapping allows.
void interpret_tegra(LogEvent& event) {
    if (says(event, "translation error [--"))
        event.record.reason = Reason::not_present;
    else if (says(event, "translation") || says(event, "ecurity") || says(event, "iolat"))
        event.record.reason = Reason::permission;
    else
        event.record.reason = Reason::address_size;
}

/// apple-dart.c: "NO PTE FOR IOVA", "WRITE FAULT (READ-ONLY)".
void interpret_dart(LogEvent& event) {
    if (says(event, "NO TTBR"))
        event.record.reason = Reason::not_attached;
    else if (says(event, "NO P"))
        event.record.reason = Reason::not_present;
    else if (says(event, "EXTERNAL"))
        event.record.reason = Reason::table_access;
    else
        event.record.reason = Reason::permission;
    if (says(event, "WRITE FAULT"))
        event.record.access = Access::write;
    else if (says(event, "READ FAULT"))
        event.record.access = Access::read;
}

struct RiscvCause {
    std::uint16_t cause;
    Reason reason;
    Access access;
};

constexpr std::array<RiscvCause, 25> riscv_causes = {{
    {1, Reason::table_access, Access::execute},      {4, Reason::bad_request, Access::read},
    {5, Reason::table_access, Access::read},         {6, Reason::bad_request, Access::write},
    {7, Reason::table_access, Access::write},        {12, Reason::not_present, Access::execute},
    {13, Reason::not_present, Access::read},         {15, Reason::not_present, Access::write},
    {20, Reason::not_present, Access::execute},      {21, Reason::not_present, Access::read},
    {23, Reason::not_present, Access::write},        {256, Reason::blocked, Access::unknown},
    {257, Reason::table_access, Access::unknown},    {258, Reason::not_attached, Access::unknown},
    {259, Reason::malformed_table, Access::unknown}, {260, Reason::bad_request, Access::unknown},
    {261, Reason::table_access, Access::unknown},    {262, Reason::interrupt, Access::unknown},
    {263, Reason::interrupt, Access::unknown},       {264, Reason::interrupt, Access::unknown},
    {265, Reason::table_access, Access::unknown},    {266, Reason::pasid, Access::unknown},
    {267, Reason::malformed_table, Access::unknown}, {268, Reason::hardware, Access::unknown},
    {273, Reason::table_access, Access::unknown},
}};

void interpret_riscv(LogEvent& event) {
    Record& record = event.record;
    for (const RiscvCause& each : riscv_causes)
        if (each.cause == record.code) {
            record.reason = each.reason;
            record.access = each.access;
        }
    if (record.code >= 32U) { // the report is about the device
        record.where = {};
        record.precision = Precision::none;
    }
}

/// AR and AW are the read and write address channels of AXI.
void interpret_read_words(LogEvent& event) {
    event.record.access = Access::read;
    interpret_reason_words(event);
}

void interpret_write_words(LogEvent& event) {
    event.record.access = Access::write;
    interpret_reason_words(event);
}

void interpret_tegra_read(LogEvent& event) {
    event.record.access = Access::read;
    interpret_tegra(event);
}

void interpret_tegra_write(LogEvent& event) {
    event.record.access = Access::write;
    interpret_tegra(event);
}

/// The master is a port of a local arbiter.
void interpret_mediatek(LogEvent& event) {
    if (event.device.empty() && event.number("larb") && event.number("port"))
        event.device = "larb" + std::to_string(*event.number("larb")) + " port" +
                       std::to_string(*event.number("port"));
}

/// IMSTR: bit 4 multiple hits, 2 page fault, 1 access, 0 translation fault.
void interpret_ipmmu(LogEvent& event) {
    event.record.reason =
        (event.record.code.value_or(0) & 1) != 0 ? Reason::not_present : Reason::permission;
}

void interpret_write_violation(LogEvent& event) {
    event.record.access = Access::write;
    event.record.reason = Reason::permission;
}

/// "[RW]" of a write, "[RX]" of an instruction fetch; "[]" if the device does not know.
void interpret_virtio_page(LogEvent& event) {
    event.text = "page";
}

void interpret_virtio_domain(LogEvent& event) {
    event.text = "domain";
}

constexpr std::array soc_rows = {
    // rockchip-iommu.c, rk_iommu_irq, log_iova
    Row{.pattern = "Page fault at {addr} of type {access}",
        .reason = Reason::not_present,
        .head = Head::unit,
        .begins = Message::soc},
    Row{.pattern = "iova = {addr}: dte_index: {hex:dte_index} pte_index: {hex:pte_index}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::soc,
        .continues = Message::soc},
    Row{.pattern = "mmu_dte_addr: {hex:root} dte@{hex:dte_at}: {hex:dte}{text}",
        .kind = Kind::detail,
        .head = Head::unit,
        .continues = Message::soc},
    Row{.pattern = "BUS_ERROR occurred at {addr}",
        .reason = Reason::table_access,
        .head = Head::unit},
    Row{.pattern = "unexpected int_status: {hcode}", .kind = Kind::unit_error, .head = Head::unit},
    Row{.pattern = "Enable stall request timed out{text}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern = "Disable stall request timed out{text}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern = "Error during raw reset{text}", .kind = Kind::unit_error, .head = Head::unit},
    Row{.pattern = "FORCE_RESET command timed out", .kind = Kind::unit_error, .head = Head::unit},
    // exynos-iommu.c, show_fault_information: the master before it; "AR", "AW" before Linux 6.1
    Row{.pattern = "[{access}] {text} FAULT occurred at {addr}",
        .head = Head::device,
        .begins = Message::exynos,
        .interpret = interpret_reason_words},
    Row{.pattern = "AR {text} FAULT occurred at {addr}",
        .head = Head::device,
        .begins = Message::exynos,
        .interpret = interpret_read_words},
    Row{.pattern = "AW {text} FAULT occurred at {addr}",
        .head = Head::device,
        .begins = Message::exynos,
        .interpret = interpret_write_words},
    Row{.pattern = "PAGE FAULT occurred at {addr} by {device}(Page table base: {hex:base})",
        .reason = Reason::not_present,
        .begins = Message::exynos},
    Row{.pattern = "PAGE FAULT occurred at {addr}",
        .reason = Reason::not_present,
        .head = Head::device,
        .begins = Message::exynos},
    Row{.pattern = "BUS ERROR FAULT occurred at {addr}",
        .reason = Reason::table_access,
        .head = Head::device,
        .begins = Message::exynos},
    Row{.pattern = "MULTI-HIT FAULT occurred at {addr}",
        .reason = Reason::hardware,
        .head = Head::device,
        .begins = Message::exynos},
    Row{.pattern = "Page table base: {hex:base}",
        .kind = Kind::detail,
        .begins = Message::exynos,
        .continues = Message::exynos},
    Row{.pattern = "Lv1 entry: {hex:level1}",
        .kind = Kind::detail,
        .begins = Message::exynos,
        .continues = Message::exynos},
    Row{.pattern = "Lv2 entry: {hex:level2}",
        .kind = Kind::detail,
        .begins = Message::exynos,
        .continues = Message::exynos},
    // mtk_iommu.c, mtk_iommu_isr; mtk_iommu_v1.c; MediaTek's kernels
    Row{.pattern = "fault type={hcode} iova={addr} pa={hex:physical} master={hex:master}"
                   "(larb={number:larb} port={number:port}) layer={number:layer} {access}",
        .reason = Reason::not_present,
        .head = Head::unit,
        .interpret = interpret_mediatek},
    Row{.pattern = "fault type={hcode} iova={addr} pa={hex:physical} larb={number:larb} "
                   "port={number:port} layer={number:layer} {access}",
        .reason = Reason::not_present,
        .head = Head::unit,
        .interpret = interpret_mediatek},
    Row{.pattern =
            "fault type={hcode} iova={addr} pa={hex:physical} larb={number:larb} "
            "{?sub_comm={number:sub_comm} ?}port={number:port} {*}layer={number:layer} {access}",
        .reason = Reason::not_present,
        .head = Head::unit,
        .interpret = interpret_mediatek},
    Row{.pattern = "fault type={hcode} iova={addr} pa={hex:physical} {access}",
        .reason = Reason::not_present,
        .head = Head::unit},
    Row{.pattern = "fault type={hcode} iova={addr} pa={hex:physical} larb={number:larb} "
                   "port={number:port}",
        .reason = Reason::not_present,
        .head = Head::unit,
        .interpret = interpret_mediatek},
    Row{.pattern = "Partial TLB flush timed out",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    // drm/v3d/v3d_irq.c, v3d_hub_irq
    Row{.pattern = "MMU error from client {*} at {addr}, write violation",
        .head = Head::device,
        .interpret = interpret_write_violation},
    Row{.pattern = "MMU error from client {*} at {addr}",
        .reason = Reason::not_present,
        .head = Head::device},
    // apple-dart.c, apple_dart_t8020_irq, apple_dart_t8110_irq
    Row{.pattern =
            "translation fault: status:{hex:status} stream:{dsid} code:{hcode} ({text}) at {addr}",
        .head = Head::unit,
        .interpret = interpret_dart},
    Row{.pattern =
            "translation fault: status:{hex:status} stream:{dsid} code:{hcode} {*} at {addr}",
        .head = Head::unit},
    Row{.pattern = "translation fault: status:{hex:status}{? stream:{dsid}?}",
        .head = Head::unit,
        .may_wrap = true},
    Row{.pattern = "apple-dart {unit}: DART {text}", .kind = Kind::setting},
    // drivers/memory/tegra/mc.c, tegra30_mc_handle_irq; tegra186 and later print the same
    Row{.pattern = "secure {access} @{addr}: {text}",
        .head = Head::device,
        .interpret = interpret_tegra},
    Row{.pattern = "read @{addr}: {text}", .head = Head::device, .interpret = interpret_tegra_read},
    Row{.pattern = "write @{addr}: {text}",
        .head = Head::device,
        .interpret = interpret_tegra_write},
    // NVIDIA's kernels: drivers/platform/tegra/mc/mcerr.c, mcerr_default_print
    Row{.pattern = "mc-err: ({*}) {device}: {text}",
        .reason = Reason::address_size,
        .begins = Message::soc,
        .interpret = interpret_tegra},
    Row{.pattern = "mc-err: status = {hex:status}; addr = {addr}",
        .kind = Kind::detail,
        .begins = Message::soc,
        .continues = Message::soc},
    Row{.pattern = "mc-err: secure: {*}, access-type: {access}",
        .kind = Kind::detail,
        .continues = Message::soc},
    Row{.pattern = "mc-err: {text}", .kind = Kind::detail},
    Row{.pattern = "mcerr: unknown intr source{text}", .kind = Kind::unit_error},
    // sun50i-iommu.c, sun50i_iommu_report_fault
    Row{.pattern = "Page fault for {addr} (master {dsid}, dir {access})",
        .reason = Reason::not_present,
        .head = Head::unit},
    // ipmmu-vmsa.c, ipmmu_domain_irq
    Row{.pattern = "Unhandled fault: status {hcode} iova {addr}",
        .head = Head::unit,
        .interpret = interpret_ipmmu},
    Row{.pattern = "Multiple TLB hits @{addr}", .reason = Reason::hardware, .head = Head::unit},
    Row{.pattern = "Page Table Walk Abort @{addr}",
        .reason = Reason::table_access,
        .head = Head::unit},
    // panfrost_mmu.c, panthor_mmu.c: a GPU's own MMU
    Row{.pattern = "Unhandled Page fault in AS{number:space} at VA {addr}",
        .reason = Reason::not_present,
        .head = Head::device,
        .begins = Message::soc},
    Row{.pattern = "access type {hex:type}: {access}",
        .kind = Kind::detail,
        .continues = Message::soc},
    // omap-iommu.c, iommu_fault_handler; sprd, fsl_pamu
    Row{.pattern = "errs:{hcode} da:{addr}", .reason = Reason::not_present, .head = Head::unit},
    Row{.pattern = "iommu fault: {*}da {addr}", .reason = Reason::not_present, .head = Head::unit},
    Row{.pattern = "access violation interrupt", .kind = Kind::unit_error, .head = Head::unit},
    Row{.pattern = "rk_iommu_irq: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "apple_dart_{*}: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "mtk_iommu_isr: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "tegra30_mc_handle_irq: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "ipmmu_domain_irq: {count} callbacks suppressed", .kind = Kind::suppressed},
};

constexpr std::array riscv_rows = {
    // riscv/iommu.c, riscv_iommu_fault
    Row{.pattern = "Fault {code} devid: {devid} iotval: {addr}{? iotval2: {hex:iotval2}?}",
        .head = Head::unit,
        .interpret = interpret_riscv},
    Row{.pattern = "riscv_iommu_{*}: {count} callbacks suppressed", .kind = Kind::suppressed},
};

constexpr std::array virtio_rows = {
    // virtio-iommu.c, viommu_fault_handler; another program's words may precede it
    Row{.pattern = "page fault from EP {endpoint}{? PASID {pasid}?} at {addr} [{?{access}?}",
        .reason = Reason::not_present,
        .head = Head::none,
        .interpret = interpret_virtio_page},
    Row{.pattern = "domain fault from EP {endpoint}{? at {addr} [{?{access}?}?}",
        .reason = Reason::not_attached,
        .interpret = interpret_virtio_domain},
    Row{.pattern = "domain fault from EP {endpoint}",
        .reason = Reason::not_attached,
        .interpret = interpret_virtio_domain},
    Row{.pattern = "unknown fault from EP {endpoint}{? at {addr}?}"},
    Row{.pattern = "viommu_fault_handler: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "input address: {text}", .kind = Kind::setting, .head = Head::unit},
    Row{.pattern = "page mask: {hex:mask}", .kind = Kind::setting, .head = Head::unit},
};

} // namespace

constinit const Dialect soc_dialect = {
    Origin::soc,
    "iommu|sysmmu|mmu|dart|fault occurred|translation "
    "fault|fault in as|-mc|mc-err|emem|fault type=|vpr |page table base",
    soc_rows};

constinit const Dialect riscv_dialect = {Origin::riscv, "devid:|riscv_iommu", riscv_rows};

constinit const Dialect virtio_dialect = {Origin::virtio_iommu, "virtio_iommu|fault from ep|viommu",
                                          virtio_rows};

} // namespace moat::fault
