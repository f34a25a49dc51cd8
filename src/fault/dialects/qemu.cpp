// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's own lines: hw/i386/intel_iommu.c, hw/arm/smmuv3.c, hw/virtio/virtio-iommu.c. Its failures
// to map: vfio.cpp.
#include "fault/text_cursor.hpp"
#include "rows.hpp"

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

void interpret_write_flag(LogEvent& event) {
    if (const auto write = event.number("write"))
        event.record.access = *write != 0 ? Access::write : Access::read;
}

/// The message may be on the next line.
void interpret_text(LogEvent& event) {
    if (event.text.empty())
        event.kind = Kind::detail;
}

void interpret_trace_event(LogEvent& event) {
    interpret_write_flag(event);
    interpret_intel_reason(event);
}

/// virtio-iommu's flags: 1 read, 2 write.
void interpret_virtio_flags(LogEvent& event) {
    event.record.access = event.record.code == 1U ? Access::read : Access::write;
}

/// "SMMU_EVT_F_TRANSLATION", "F_TRANSLATION".
void interpret_smmu_name(LogEvent& event) {
    const auto is = [&](std::string_view word) { return event.text.find(word) != event.text.npos; };
    if (is("F_TRANSLATION"))
        event.record.reason = Reason::not_present;
    else if (is("F_PERMISSION") || is("F_ACCESS"))
        event.record.reason = Reason::permission;
    else if (is("F_ADDR_SIZE"))
        event.record.reason = Reason::address_size;
    else if (is("BAD_STREAMID"))
        event.record.reason = Reason::not_attached;
    else if (is("FETCH") || is("WALK_EABT"))
        event.record.reason = Reason::table_access;
    else if (is("BAD_"))
        event.record.reason = Reason::malformed_table;
}

constexpr std::array qemu_rows = {
    // intel_iommu.c, vtd_iova_to_slpte and vtd_iova_to_fspte: why the next translation fails
    Row{.pattern = "detected slpte permission error (iova={addr}, level={hex:level}, "
                   "slpte={hex:pte}, write={number:write}",
        .kind = Kind::detail,
        .reason = Reason::permission,
        .begins = Message::qemu,
        .interpret = interpret_write_flag},
    Row{.pattern = "detected {text} permission error (iova={addr}, level={hex:level}, "
                   "{*}write={number:write}",
        .kind = Kind::detail,
        .reason = Reason::permission,
        .begins = Message::qemu,
        .interpret = interpret_write_flag},
    Row{.pattern = "detected IOVA overflow (iova={addr}",
        .kind = Kind::detail,
        .reason = Reason::address_size,
        .begins = Message::qemu},
    Row{.pattern = "detected splte reserve non-zero {?(?}iova={addr}",
        .kind = Kind::detail,
        .reason = Reason::malformed_table,
        .begins = Message::qemu},
    Row{.pattern = "detected {text} reserve non-zero {?(?}iova={addr}",
        .kind = Kind::detail,
        .reason = Reason::malformed_table,
        .begins = Message::qemu},
    // vtd_iommu_translate
    Row{.pattern = "detected translation failure (dev={pci}, iova={addr}{?, pasid={pasid}?}",
        .continues = Message::qemu},
    Row{.pattern = "detected translation failure {text}",
        .continues = Message::qemu,
        .may_wrap = true},
    // hw/i386/trace-events, vtd_dmar_fault
    Row{.pattern = "vtd_dmar_fault sid {rid} fault {code} addr {addr} write {number:write}",
        .interpret = interpret_trace_event},
    // smmuv3.c, smmuv3_translate: the region's name has devfn
    Row{.pattern =
            "smmuv3-iommu-memory-region-{number:devfn}-{number:index} translation failed for "
            "iova={addr} ({text})",
        .interpret = interpret_smmu_name},
    Row{.pattern = "translation failed for iova={addr} ({text})", .interpret = interpret_smmu_name},
    Row{.pattern = "translation failed for iova={addr}"},
    // virtio-iommu.c, virtio_iommu_translate
    Row{.pattern = "virtio_iommu_translate no mapping for {addr}{? for sid={endpoint}?}",
        .reason = Reason::not_present},
    Row{.pattern = "virtio_iommu_translate permission error on {addr}({code})",
        .reason = Reason::permission,
        .interpret = interpret_virtio_flags},
    Row{.pattern = "virtio_iommu_translate {*}sid={endpoint} is not known",
        .reason = Reason::not_attached},
    Row{.pattern = "vtd_{text}: {*}invalid {*}", .kind = Kind::unit_error},
    Row{.pattern = "vtd_{*}: {text}",
        .kind = Kind::unit_error,
        .interpret = interpret_text,
        .may_wrap = true},
    Row{.pattern = "amdvi_{text}: {*}", .kind = Kind::unit_error},
};

} // namespace

constinit const Dialect qemu_dialect = {
    Origin::qemu,
    "vtd_|virtio_iommu_translate|translation failed for|detected translation failure|slpte|amdvi_",
    qemu_rows};

} // namespace moat::fault
