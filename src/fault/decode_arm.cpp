// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The fault lines of Linux's two SMMU drivers.
// Events: Arm SMMUv3 architecture (IHI 0070), "Event records"; registers: SMMUv2 (IHI 0062).
#include "moat/core/bits.hpp"

#include "dialects.hpp"
#include "text_cursor.hpp"

namespace moat::fault {

namespace {

struct EventName {
    std::uint8_t number;
    std::string_view name;
    Reason reason;
    bool has_address;
};

constexpr std::array<EventName, 19> events = {{
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

[[nodiscard]] const EventName* find_event(std::uint64_t number) {
    for (const EventName& each : events)
        if (each.number == number)
            return &each;
    return nullptr;
}

// FSR and FSYNR0 of SMMUv2.
constexpr std::uint64_t fsr_translation = bit(1);
constexpr std::uint64_t fsr_access_flag = bit(2);
constexpr std::uint64_t fsr_permission = bit(3);
constexpr std::uint64_t fsr_external = bit(4);
constexpr std::uint64_t fsynr_write = bit(4);
constexpr std::uint64_t fsynr_instruction = bit(6);

[[nodiscard]] Reason reason_of_fsr(std::uint64_t fsr) {
    if ((fsr & fsr_translation) != 0)
        return Reason::not_present;
    if ((fsr & (fsr_permission | fsr_access_flag)) != 0)
        return Reason::permission;
    return (fsr & fsr_external) != 0 ? Reason::table_access : Reason::unknown;
}

[[nodiscard]] Access access_of(bool read, bool instruction) {
    if (!read)
        return Access::write;
    return instruction ? Access::execute : Access::read;
}

} // namespace

std::optional<LogEvent> decode_smmu_v2(std::string_view line) {
    TextCursor cursor(line);
    LogEvent decoded{.origin = Origin::smmu_v2};
    Record& record = decoded.record;
    if (cursor.find("Blocked unknown Stream ID ")) {
        const auto stream = cursor.hex<std::uint32_t>();
        if (!stream)
            return std::nullopt;
        record.source = Source::stream(*stream);
        record.reason = Reason::not_attached;
        return decoded;
    }
    if (!cursor.find("Unhandled context fault:"))
        return std::nullopt;
    const auto fsr = cursor.hex_after("fsr=");
    const auto address = cursor.hex_after("iova=");
    const auto syndrome = cursor.hex_after("fsynr=");
    if (!fsr || !address || !syndrome)
        return std::nullopt;
    if (const auto stream = TextCursor(cursor.rest()).hex_after<std::uint32_t>("cbfrsynra="))
        record.source = Source::stream(*stream & 0xffff);
    if (TextCursor bank(cursor.rest()); bank.find("cb="))
        record.domain = bank.decimal<std::uint32_t>();
    record.code = fsr;
    record.reason = reason_of_fsr(*fsr);
    record.access = access_of((*syndrome & fsynr_write) == 0, (*syndrome & fsynr_instruction) != 0);
    record.where = byte_at(*address);
    record.precision = Precision::start;
    return decoded;
}

std::optional<LogEvent> decode_smmu_v3(std::string_view line) {
    LogEvent decoded{.origin = Origin::smmu_v3};
    TextCursor cursor(line);
    if (cursor.find("EVTQ overflow detected")) {
        decoded.record.reason = Reason::events_lost;
        return decoded;
    }
    if (!TextCursor(line).find("smmu") || !cursor.find("event 0x"))
        return std::nullopt;
    const auto number = cursor.number<std::uint8_t>(16);
    if (!number || !cursor.accept(" received:"))
        return std::nullopt;
    decoded.record.code = *number;
    if (const EventName* const event = find_event(*number)) {
        decoded.text = event->name;
        decoded.record.reason = event->reason;
    }
    return decoded;
}

std::optional<std::uint64_t> smmu_word(std::string_view line) {
    const std::size_t at = line.rfind("0x");
    if (at == line.npos || line.find("smmu") == line.npos)
        return std::nullopt;
    TextCursor cursor(line.substr(at));
    const std::size_t before = cursor.rest().size();
    const auto word = cursor.hex();
    return word && before - cursor.rest().size() == 18 ? word : std::nullopt;
}

void add_smmu_words(const std::array<std::uint64_t, 4>& words, LogEvent& decoded) {
    Record& record = decoded.record;
    record.source = Source::stream(static_cast<std::uint32_t>(words[0] >> 32));
    if ((words[0] & bit(11)) != 0)
        record.pasid = static_cast<std::uint32_t>(words[0] >> 12 & low_bits(20));
    const EventName* const event = find_event(*record.code);
    if (event == nullptr || !event->has_address)
        return;
    record.access = access_of((words[1] & bit(35)) != 0, (words[1] & bit(34)) != 0);
    record.where = byte_at(words[2]);
    record.precision = Precision::start;
}

bool add_smmu_names(std::string_view line, LogEvent& decoded) {
    if (line.find("smmu") == line.npos)
        return false;
    TextCursor cursor(line);
    if (cursor.find("event: ")) {
        const std::string_view name = cursor.until(" ");
        if (name != decoded.text || !cursor.accept("client: "))
            return false;
        decoded.device = cursor.until(" ");
        if (const auto source = parse_pci_address(decoded.device))
            decoded.record.source = *source;
        return true;
    }
    TextCursor flags(line);
    return flags.find("priv data") || flags.find("priv inst");
}

} // namespace moat::fault
