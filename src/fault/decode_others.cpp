// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The fault lines of Linux's RISC-V and virtio drivers, of QEMU, and of VFIO's pinning.
// Causes: RISC-V IOMMU architecture specification, "Fault record CAUSE field encodings".
#include "dialects.hpp"
#include "text_cursor.hpp"

namespace moat::fault {

namespace {

struct Cause {
    Reason reason;
    Access access;
};

[[nodiscard]] Cause riscv_cause(std::uint32_t cause) {
    switch (cause) {
    case 1:
        return {Reason::table_access, Access::execute};
    case 5:
        return {Reason::table_access, Access::read};
    case 7:
        return {Reason::table_access, Access::write};
    case 12:
    case 20:
        return {Reason::not_present, Access::execute};
    case 13:
    case 21:
        return {Reason::not_present, Access::read};
    case 15:
    case 23:
        return {Reason::not_present, Access::write};
    case 256:
        return {Reason::blocked, Access::unknown};
    case 258:
        return {Reason::not_attached, Access::unknown};
    case 260:
        return {Reason::bad_request, Access::unknown};
    case 257:
    case 265:
        return {Reason::table_access, Access::unknown};
    case 259:
    case 267:
        return {Reason::malformed_table, Access::unknown};
    case 266:
        return {Reason::pasid, Access::unknown};
    case 261:
    case 262:
    case 263:
    case 264:
        return {Reason::interrupt, Access::unknown};
    default:
        return {cause >= 268 && cause <= 274 ? Reason::hardware : Reason::unknown, Access::unknown};
    }
}

/// Both emulators name devices "05:00:00", all hexadecimal.
void set_address(Record& record, std::uint64_t address) {
    record.where = byte_at(address);
    record.precision = Precision::start;
}

} // namespace

std::optional<LogEvent> decode_riscv(std::string_view line) {
    TextCursor cursor(line);
    LogEvent decoded{.origin = Origin::riscv};
    Record& record = decoded.record;
    if (!cursor.find("Fault "))
        return std::nullopt;
    const auto cause = cursor.decimal<std::uint32_t>();
    if (!cause || !cursor.accept(" devid: "))
        return std::nullopt;
    const auto device = cursor.hex<std::uint32_t>();
    if (!device || !cursor.accept(" iotval: "))
        return std::nullopt;
    const auto address = cursor.hex();
    if (!address)
        return std::nullopt;
    record.source = Source::device_id(*device);
    record.code = *cause;
    record.reason = riscv_cause(*cause).reason;
    record.access = riscv_cause(*cause).access;
    if (*cause < 32)
        set_address(record, *address);
    return decoded;
}

std::optional<LogEvent> decode_virtio_iommu(std::string_view line) {
    TextCursor cursor(line);
    const std::string_view before = cursor.until(" fault from EP ");
    const auto endpoint = cursor.decimal<std::uint32_t>();
    if (!endpoint || before.size() == line.size())
        return std::nullopt;
    LogEvent decoded{.origin = Origin::virtio_iommu};
    Record& record = decoded.record;
    record.source = Source::endpoint(*endpoint);
    decoded.text = before.substr(before.rfind(' ') + 1);
    if (decoded.text == "page")
        record.reason = Reason::not_present;
    else if (decoded.text == "domain")
        record.reason = Reason::not_attached;
    if (!cursor.accept(" at "))
        return decoded;
    const auto address = cursor.hex();
    if (!address)
        return std::nullopt;
    set_address(record, *address);
    if (!cursor.accept(" ["))
        return decoded;
    const std::string_view flags = cursor.rest().substr(0, cursor.rest().find(']'));
    if (flags == "W" || flags == "RW")
        record.access = Access::write;
    else if (flags == "R")
        record.access = Access::read;
    else if (flags == "X" || flags == "RX")
        record.access = Access::execute;
    return decoded;
}

std::optional<LogEvent> decode_qemu(std::string_view line) {
    TextCursor cursor(line);
    LogEvent decoded{.origin = Origin::qemu};
    Record& record = decoded.record;
    std::optional<std::uint64_t> address;
    if (cursor.find("detected translation failure (dev=")) {
        const auto source = cursor.pci_function();
        if (!source)
            return std::nullopt;
        record.source = *source;
        address = cursor.hex_after("iova=");
    } else if (cursor.find("virtio_iommu_translate no mapping for ")) {
        address = cursor.hex();
        record.reason = Reason::not_present;
        if (cursor.accept(" for sid="))
            if (const auto endpoint = cursor.decimal<std::uint32_t>())
                record.source = Source::endpoint(*endpoint);
    } else if (cursor.find("virtio_iommu_translate permission error on ")) {
        address = cursor.hex();
        record.reason = Reason::permission;
        record.code = cursor.accept("(") ? cursor.decimal() : std::nullopt;
        if (record.code)
            record.access = *record.code == 1 ? Access::read : Access::write;
    }
    if (!address)
        return std::nullopt;
    set_address(record, *address);
    return decoded;
}

std::optional<LogEvent> decode_vfio(std::string_view line) {
    TextCursor cursor(line);
    if (!cursor.find("RLIMIT_MEMLOCK ("))
        return std::nullopt;
    const auto limit = cursor.decimal();
    if (!limit || !cursor.accept(") exceeded"))
        return std::nullopt;
    return LogEvent{.kind = LogEvent::Kind::memory_limit, .origin = Origin::vfio, .bytes = *limit};
}

} // namespace moat::fault
