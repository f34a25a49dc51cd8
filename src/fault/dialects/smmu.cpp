// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arm's SMMUs: Linux drivers/iommu/arm/arm-smmu/*.c and arm-smmu-v3/*.c, NVIDIA's and Qualcomm's
// kernels, Xen's drivers/passthrough/arm/smmu*.c. Registers: SMMUv2 (IHI 0062), 16.5 and 9.6;
// events: SMMUv3 (IHI 0070), 7.3 "Event records".
#include "moat/core/bits.hpp"

#include "fault/text_cursor.hpp"
#include "rows.hpp"

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

struct SmmuEvent {
    std::uint8_t number;
    std::string_view name;
    Reason reason;
    bool has_address;
};

constexpr std::array<SmmuEvent, 19> smmu_events = {{
    {0x01, "F_UUT", Reason::bad_request, true},
    {0x02, "C_BAD_STREAMID", Reason::not_attached, false},
    {0x03, "F_STE_FETCH", Reason::table_access, false},
    {0x04, "C_BAD_STE", Reason::malformed_table, false},
    {0x05, "F_BAD_ATS_TREQ", Reason::bad_request, true},
    {0x06, "F_STREAM_DISABLED", Reason::blocked, false},
    {0x07, "F_TRANSL_FORBIDDEN", Reason::bad_request, true},
    {0x08, "C_BAD_SUBSTREAMID", Reason::pasid, false},
    {0x09, "F_CD_FETCH", Reason::table_access, false},
    {0x0a, "C_BAD_CD", Reason::malformed_table, false},
    {0x0b, "F_WALK_EABT", Reason::table_access, true},
    {0x10, "F_TRANSLATION", Reason::not_present, true},
    {0x11, "F_ADDR_SIZE", Reason::address_size, true},
    {0x12, "F_ACCESS", Reason::permission, true},
    {0x13, "F_PERMISSION", Reason::permission, true},
    {0x20, "F_TLB_CONFLICT", Reason::hardware, true},
    {0x21, "F_CFG_CONFLICT", Reason::hardware, false},
    {0x24, "E_PAGE_REQUEST", Reason::not_present, true},
    {0x25, "F_VMS_FETCH", Reason::table_access, false},
}};

// FSR, FSYNR0, GFSR and GFSYNR0 of SMMUv2.
constexpr std::uint64_t fsr_translation = bit(1);
constexpr std::uint64_t fsr_access_flag = bit(2);
constexpr std::uint64_t fsr_permission = bit(3);
constexpr std::uint64_t fsr_external = bit(4);
constexpr std::uint64_t fsr_conflict = bit(5) | bit(6);
constexpr std::uint64_t fsr_address_size = bit(7);
constexpr std::uint64_t fsynr_write = bit(4);
constexpr std::uint64_t fsynr_instruction = bit(6);
constexpr std::uint64_t gfsr_invalid_context = bit(0);
constexpr std::uint64_t gfsr_unidentified = bit(1);
constexpr std::uint64_t gfsr_match_conflict = bit(2);
constexpr std::uint64_t gfsr_unimplemented = bit(3) | bit(4);
constexpr std::uint64_t gfsr_external = bit(6);
constexpr std::uint64_t gfsr_permission = bit(7);
constexpr std::uint64_t gfsynr_write = bit(1);
constexpr std::uint64_t gfsynr_instruction = bit(3);

[[nodiscard]] Access smmu_access(bool write, bool instruction) {
    if (write)
        return Access::write;
    return instruction ? Access::execute : Access::read;
}

[[nodiscard]] Reason reason_of_fsr(std::uint64_t fsr) {
    if ((fsr & fsr_translation) != 0)
        return Reason::not_present;
    if ((fsr & (fsr_permission | fsr_access_flag)) != 0)
        return Reason::permission;
    if ((fsr & fsr_external) != 0)
        return Reason::table_access;
    if ((fsr & fsr_address_size) != 0)
        return Reason::address_size;
    return (fsr & fsr_conflict) != 0 ? Reason::hardware : Reason::unknown;
}

/// Without FSR, a context fault is what it nearly always is.
void interpret_context_fault(LogEvent& event) {
    Record& record = event.record;
    if (const auto fsr = event.number("fsr"))
        record.code = fsr;
    if (record.code)
        record.reason = reason_of_fsr(*record.code);
    auto syndrome = event.number("fsynr");
    if (!syndrome)
        syndrome = event.number("fsynr0");
    if (syndrome)
        record.access =
            smmu_access((*syndrome & fsynr_write) != 0, (*syndrome & fsynr_instruction) != 0);
    if (const auto stream = event.number("cbfrsynra");
        stream && record.source.kind() == Source::Kind::unknown)
        record.source = Source::stream(static_cast<std::uint32_t>(*stream & 0xffff));
}

/// "FSR = 0x40000402 [TF W SS ]": the letter tells the access where FSYNR0 is not printed.
void interpret_fsr_line(LogEvent& event) {
    interpret_context_fault(event);
    if (event.record.access == Access::unknown && event.text.find(" W") != event.text.npos)
        event.record.access = Access::write;
    else if (event.record.access == Access::unknown && event.text.find(" R") != event.text.npos)
        event.record.access = Access::read;
}

void interpret_gpu_fault(LogEvent& event) {
    event.record.reason =
        event.text.starts_with("PERMISSION") ? Reason::permission : Reason::not_present;
}

/// IOMMU_FAULT_WRITE (include/linux/iommu.h).
void interpret_fault_flags(LogEvent& event) {
    event.record.reason = Reason::not_present;
    event.record.access =
        (event.number("flags").value_or(0) & 1) != 0 ? Access::write : Access::read;
}

void interpret_global_fault(LogEvent& event) {
    Record& record = event.record;
    const std::uint64_t gfsr = event.number("gfsr").value_or(0);
    record.code = gfsr;
    if ((gfsr & (gfsr_unidentified | gfsr_invalid_context)) != 0)
        record.reason = Reason::not_attached;
    else if ((gfsr & (gfsr_match_conflict | gfsr_unimplemented)) != 0)
        record.reason = Reason::malformed_table;
    else if ((gfsr & gfsr_external) != 0)
        record.reason = Reason::table_access;
    else if ((gfsr & gfsr_permission) != 0)
        record.reason = Reason::permission;
    event.text = (gfsr & gfsr_unidentified) != 0     ? "unidentified stream"
                 : (gfsr & gfsr_match_conflict) != 0 ? "stream match conflict"
                                                     : "global fault";
    record.source =
        Source::stream(static_cast<std::uint32_t>(event.number("gfsynr1").value_or(0) & 0xffff));
    const std::uint64_t syndrome = event.number("gfsynr0").value_or(0);
    record.access =
        smmu_access((syndrome & gfsynr_write) != 0, (syndrome & gfsynr_instruction) != 0);
}

[[nodiscard]] const SmmuEvent* find_smmu_event(std::uint64_t number) {
    for (const SmmuEvent& each : smmu_events)
        if (each.number == number)
            return &each;
    return nullptr;
}

void interpret_event_number(LogEvent& event) {
    const SmmuEvent* const found = find_smmu_event(event.record.code.value_or(0));
    if (found == nullptr)
        return;
    event.text = found->name;
    event.record.reason = found->reason;
}

/// The first word of a command: of an invalidation in a device (ATC_INV), its StreamID.
void interpret_command_word(LogEvent& event) {
    constexpr std::uint64_t atc_invalidate = 0x40;
    const std::uint64_t word = event.numbers.back().value;
    if ((word & 0xff) == atc_invalidate && event.record.source.kind() == Source::Kind::unknown)
        event.record.source = Source::stream(static_cast<std::uint32_t>(word >> 32));
}

/// The four words of an event record: StreamID, SubstreamID, access, input address.
void interpret_event_word(LogEvent& event) {
    if (event.kind == Kind::invalidation)
        return interpret_command_word(event);
    Record& record = event.record;
    if (event.numbers.size() != 4 || !record.code || record.source.kind() != Source::Kind::unknown)
        return;
    const std::uint64_t first = event.numbers[0].value;
    record.source = Source::stream(static_cast<std::uint32_t>(first >> 32));
    if ((first & bit(11)) != 0)
        record.pasid = static_cast<std::uint32_t>(first >> 12 & low_bits(20));
    const SmmuEvent* const found = find_smmu_event(*record.code);
    if (found == nullptr || !found->has_address)
        return;
    const std::uint64_t second = event.numbers[1].value;
    record.access = smmu_access((second & bit(35)) == 0, (second & bit(34)) != 0);
    record.where = byte_at(event.numbers[2].value);
    record.precision = Precision::start;
}

/// "event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100": the client names the device better.
void interpret_event_names(LogEvent& event) {
    for (const SmmuEvent& each : smmu_events)
        if (event.text == each.name) {
            event.record.code = each.number;
            event.record.reason = each.reason;
            if (!each.has_address) {
                event.record.where = {};
                event.record.precision = Precision::none;
            }
        }
    if (event.record.source.kind() != Source::Kind::pci)
        if (const auto stream = event.number("sid"))
            event.record.source = Source::stream(static_cast<std::uint32_t>(*stream));
    if (const auto pasid = event.number("ssid"); pasid && *pasid != 0)
        event.record.pasid = static_cast<std::uint32_t>(*pasid);
}

void interpret_command_error(LogEvent& event) {
    if (event.text.find("ATC") != event.text.npos || event.text.find("timeout") != event.text.npos)
        return;
    event.kind = Kind::unit_error;
    event.record.reason = Reason::hardware;
}

constexpr std::array smmu_v2_rows = {
    // arm-smmu.c, arm_smmu_context_fault and its callees; qcom_iommu.c, qcom_iommu_fault
    Row{.pattern = "Unhandled context fault: fsr={hcode}, iova={addr}, fsynr={hex:fsynr}"
                   "{?, cbfrsynra={hex:cbfrsynra}?}{?, cb={ddomain}?}",
        .head = Head::unit,
        .begins = Message::context_fault,
        .interpret = interpret_context_fault},
    // NVIDIA's kernels, with the client's name; Xen and Linux to 5.0, without FSR
    Row{.pattern = "Unhandled context fault: iova={addr}, fsynr={hex:fsynr}, cb={ddomain}"
                   "{?, sid={*}({hex:sid} - {device})?}",
        .reason = Reason::not_present,
        .head = Head::unit,
        .interpret = interpret_context_fault},
    Row{.pattern = "Unhandled context fault: smmu{*}, iova={addr}, fsynr={hex:fsynr}, cb={ddomain}"
                   "{?, sid={*}({hex:sid} - {device})?}",
        .reason = Reason::not_present,
        .head = Head::unit,
        .interpret = interpret_context_fault},
    Row{.pattern = "Unhandled context fault: iova={addr}, cb={ddomain}, fsr={hcode}, "
                   "fsynr0={hex:fsynr0}{?, fsynr1={hex:fsynr1}?}",
        .head = Head::unit,
        .interpret = interpret_context_fault},
    Row{.pattern = "Unhandled context fault: iova={addr}{?, fsr={hcode}?}{?, fsynr={hex:fsynr}?}"
                   "{?, cbfrsynra={hex:cbfrsynra}?}{?, sid={sid}?}{?, cb={ddomain}?}",
        .reason = Reason::not_present,
        .head = Head::unit,
        .begins = Message::context_fault,
        .interpret = interpret_context_fault},
    Row{.pattern = "Unhandled context fault: {*}iova={addr}",
        .reason = Reason::not_present,
        .head = Head::unit},
    Row{.pattern = "context fault: fsr={hcode}, iova={addr}, fsynr={hex:fsynr}",
        .head = Head::unit,
        .interpret = interpret_context_fault},
    Row{.pattern = "Unexpected {*} context fault (fsr={hcode}{*}iova={addr}",
        .head = Head::unit,
        .interpret = interpret_context_fault},
    // msm_iommu.c, msm_iommu_fault_handler: its registers are those of the SMMU
    Row{.pattern = "Unexpected IOMMU page fault!",
        .reason = Reason::not_present,
        .begins = Message::context_fault},
    Row{.pattern = "Interesting registers:",
        .kind = Kind::detail,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "base = {text}",
        .kind = Kind::detail,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    // drm/msm/adreno/adreno_gpu.c, adreno_fault_handler: a GPU behind its SMMU
    Row{.pattern =
            "gpu fault: {?ttbr0={hex:ttbr0} ?}iova={addr}{?,?} dir={access}{?,?} type={text}{?,?} "
            "source={device} (",
        .interpret = interpret_gpu_fault},
    // a5xx_gpu.c, a5xx_fault_handler, and a6xx_gpu.c before Linux 6.3; msm_iommu.c,
    // msm_fault_handler
    Row{.pattern = "gpu fault: iova={addr}{?,?} flags={number:flags}",
        .interpret = interpret_fault_flags},
    Row{.pattern = "*** fault: iova={? ?}{addr}, flags={number:flags}",
        .interpret = interpret_fault_flags},
    // Qualcomm's kernels: arm-smmu.c, print_ctx_regs and arm_smmu_context_fault
    Row{.pattern = "Unhandled arm-smmu context fault from {device}!",
        .head = Head::unit,
        .begins = Message::context_fault},
    Row{.pattern = "Unhandled arm-smmu context fault from {device}",
        .head = Head::unit,
        .begins = Message::context_fault},
    Row{.pattern = "FAR = {addr}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "FAR {addr}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "PAR = {hex:par}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "FSR = {hex:fsr} [{text}]{?, SID={sid}?}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault,
        .interpret = interpret_fsr_line},
    Row{.pattern = "FSR {hex:fsr} [{text}]",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault,
        .interpret = interpret_fsr_line},
    Row{.pattern = "FSYNR0 = {hex:fsynr0}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault,
        .interpret = interpret_context_fault},
    Row{.pattern = "FSYNR1 = {hex:fsynr1}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "context bank# = {hex:bank}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "SID = {sid}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "SID={sid}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "Client info: {text}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    Row{.pattern = "TTBR{*}= {hex:ttbr}", .kind = Kind::detail, .head = Head::unit},
    Row{.pattern = "SCTLR{*}= {hex:sctlr}", .kind = Kind::detail, .head = Head::unit},
    Row{.pattern = "CBAR{*}= {hex:cbar}", .kind = Kind::detail, .head = Head::unit},
    Row{.pattern = "MAIR{*}= {hex:mair}", .kind = Kind::detail, .head = Head::unit},
    Row{.pattern = "soft iova-to-phys{*}{hex:physical}", .kind = Kind::detail, .head = Head::unit},
    Row{.pattern = "hard iova-to-phys{*}{hex:physical}", .kind = Kind::detail, .head = Head::unit},
    Row{.pattern = "name = {device}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::context_fault,
        .continues = Message::context_fault},
    // arm-smmu.c, arm_smmu_global_fault
    Row{.pattern = "Unexpected global fault, this could be serious",
        .head = Head::unit,
        .begins = Message::global_fault},
    Row{.pattern = "Blocked unknown Stream ID {sid}",
        .reason = Reason::not_attached,
        .head = Head::unit,
        .begins = Message::global_fault},
    Row{.pattern = "GFSR {hex:gfsr}, GFSYNR0 {hex:gfsynr0}, GFSYNR1 {hex:gfsynr1}"
                   "{?, GFSYNR2 {hex:gfsynr2}?}",
        .head = Head::unit,
        .continues = Message::global_fault,
        .interpret = interpret_global_fault},
    Row{.pattern = "TLB sync timed out -- SMMU may be deadlocked",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern = "TLB sync timed out",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern = "iommu_fault_report_{*}", .kind = Kind::note},
    Row{.pattern = "arm_smmu_context_fault: {count} callbacks suppressed",
        .kind = Kind::suppressed},
    Row{.pattern = "arm_smmu_global_fault: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "arm_smmu_{*}: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "qcom_iommu_fault: {count} callbacks suppressed", .kind = Kind::suppressed},
    // arm-smmu.c, arm_smmu_device_cfg_probe, arm_smmu_device_reset, arm_smmu_attach_dev
    Row{.pattern = "probing hardware configuration", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "SMMUv{number:version} with:", .kind = Kind::setting, .head = Head::unit},
    Row{.pattern = "stage {number:stage} translation", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "nested translation", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "address translation ops", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "coherent table walk", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "non-coherent table walk", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "(IDR0.CTTW overridden{text}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "stream matching with {number:groups} register groups",
        .kind = Kind::note,
        .head = Head::unit},
    Row{.pattern = "context banks ({text}", .kind = Kind::note},
    Row{.pattern = "Supported page sizes: {hex:sizes}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "Stage-1: {text}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "Stage-2: {text}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "preserved {number:mappings} boot mapping",
        .kind = Kind::setting,
        .head = Head::unit},
    Row{.pattern = "enabling workaround for {text}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "disabling translation", .kind = Kind::setting, .head = Head::unit},
    Row{.pattern = "Failed to disable prefetcher{text}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "stream match conflict for {text}",
        .kind = Kind::unit_refused,
        .head = Head::unit},
    Row{.pattern = "arm-smmu {unit}: found only {text}", .kind = Kind::unit_refused},
    Row{.pattern = "arm-smmu {unit}: failed to {text}", .kind = Kind::unit_refused},
    Row{.pattern = "cannot attach to SMMU {text}",
        .kind = Kind::unit_refused,
        .head = Head::device},
};

constexpr std::array smmu_v3_rows = {
    // arm-smmu-v3.c, arm_smmu_evtq_thread, arm_smmu_dump_event, arm_smmu_dump_raw_event
    Row{.pattern = "event {hcode} received:",
        .head = Head::unit,
        .begins = Message::smmu_v3,
        .interpret = interpret_event_number},
    Row{.pattern = "event: {text} client: {device} sid: {hex:sid} ssid: {hex:ssid} iova: {addr}"
                   "{? ipa: {hex:ipa}?}",
        .head = Head::unit,
        .begins = Message::smmu_v3,
        .continues = Message::smmu_v3,
        .interpret = interpret_event_names},
    Row{.pattern = "event: {text} client: {device} sid: {hex:sid} ssid: {hex:ssid}",
        .head = Head::unit,
        .begins = Message::smmu_v3,
        .continues = Message::smmu_v3,
        .interpret = interpret_event_names},
    Row{.pattern = "unpriv {*} {access} s{number:stage} {*}",
        .kind = Kind::detail,
        .head = Head::unit,
        .continues = Message::smmu_v3},
    Row{.pattern = "priv {*} {access} s{number:stage} {*}",
        .kind = Kind::detail,
        .head = Head::unit,
        .continues = Message::smmu_v3},
    Row{.pattern = "EVTQ overflow detected -- events lost",
        .reason = Reason::events_lost,
        .head = Head::unit},
    Row{.pattern = "PRIQ overflow detected -- requests lost",
        .reason = Reason::events_lost,
        .head = Head::unit},
    Row{.pattern = "unexpected PRI request received:",
        .reason = Reason::bad_request,
        .head = Head::unit},
    Row{.pattern = "sid {hex:word}.{hex:ssid}: [{text}] {*} access at iova {addr}",
        .kind = Kind::detail},
    // arm_smmu_cmdq_skip_err, __arm_smmu_cmdq_issue_cmdlist
    Row{.pattern = "CMDQ error (cons {hex:cons}): {text}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit,
        .begins = Message::smmu_v3,
        .interpret = interpret_command_error},
    Row{.pattern = "skipping command in error state:",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::smmu_v3,
        .continues = Message::smmu_v3},
    Row{.pattern = "retrying command fetch", .kind = Kind::detail, .head = Head::unit},
    Row{.pattern = "CMD_SYNC timeout{? at {hex:at}?}",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    Row{.pattern = "CMDQ timeout",
        .kind = Kind::invalidation,
        .reason = Reason::invalidation,
        .head = Head::unit},
    // arm_smmu_gerror_handler
    Row{.pattern = "unexpected global error reported ({hcode}), this could be serious",
        .kind = Kind::unit_error,
        .reason = Reason::hardware,
        .head = Head::unit},
    Row{.pattern = "device has entered Service Failure Mode",
        .kind = Kind::unit_error,
        .reason = Reason::hardware,
        .head = Head::unit},
    Row{.pattern = "GERROR MSI write aborted", .kind = Kind::unit_error, .head = Head::unit},
    Row{.pattern = "EVTQ write aborted -- events may have been lost",
        .kind = Kind::unit_error,
        .reason = Reason::events_lost,
        .head = Head::unit},
    Row{.pattern = "PRIQ write aborted -- events may have been lost",
        .kind = Kind::unit_error,
        .reason = Reason::events_lost,
        .head = Head::unit},
    Row{.pattern = "arm_smmu_evtq_thread: {count} callbacks suppressed", .kind = Kind::suppressed},
    Row{.pattern = "arm_smmu_evtq_{*}: {count} callbacks suppressed", .kind = Kind::suppressed},
    // arm_smmu_device_hw_probe, arm_smmu_device_reset, arm_smmu_init_one_queue
    Row{.pattern = "allocated {number:entries} entries for {text}",
        .kind = Kind::note,
        .head = Head::unit},
    Row{.pattern = "ias {text}", .kind = Kind::setting, .head = Head::unit},
    Row{.pattern = "option mask {hex:mask}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "msi_domain absent - {text}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "SMMU currently enabled! Resetting...",
        .kind = Kind::setting,
        .head = Head::unit},
    Row{.pattern = "no priority IRQ{text}", .kind = Kind::note, .head = Head::unit},
    Row{.pattern = "Adding to iommu group {number:group}",
        .kind = Kind::device_name,
        .head = Head::device},
    // one of the four words of an event: 16 digits at the end of the line
    Row{.pattern = "0x{word}",
        .kind = Kind::detail,
        .head = Head::unit,
        .begins = Message::smmu_v3,
        .continues = Message::smmu_v3,
        .interpret = interpret_event_word},
};

} // namespace

constinit const Dialect smmu_v2_dialect = {
    Origin::smmu_v2,
    "smmu|context fault|global fault|fsr|far |page fault!|gpu fault|*** fault|base = ",
    smmu_v2_rows};

constinit const Dialect smmu_v3_dialect = {Origin::smmu_v3, "smmu", smmu_v3_rows};

} // namespace moat::fault
