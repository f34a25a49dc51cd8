// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Lines of tracefs: the events of Linux's iommu and dma systems. A mapping's label is its device,
// which only the dma system names.
#include "trace_line.hpp"

#include "log_group.hpp"
#include "text_cursor.hpp"

namespace moat::fault {

namespace {

/// "12.345678:" before the event's name, the format of tracefs.
[[nodiscard]] std::uint64_t trace_time(std::string_view head) {
    while (head.ends_with(' '))
        head.remove_suffix(1);
    TextCursor cursor(head.substr(head.rfind(' ') + 1));
    const auto seconds = cursor.decimal<std::uint32_t>();
    if (!seconds || !cursor.accept("."))
        return 0;
    const auto microseconds = cursor.decimal<std::uint32_t>();
    return *seconds * std::uint64_t{1'000'000'000} + microseconds.value_or(0) * std::uint64_t{1000};
}

/// Moves past `key`, and reads the event's time if the line has it.
[[nodiscard]] bool find_event(TextCursor& cursor, std::string_view line, std::string_view key,
                              std::uint64_t& time) {
    if (!cursor.find(key))
        return false;
    time = trace_time(line.substr(0, line.size() - cursor.rest().size() - key.size()));
    return true;
}

/// Reads the hexadecimal start after `key` and "size=". Return: nothing without a valid range.
[[nodiscard]] std::optional<LogEvent> with_range(LogEvent decoded, TextCursor& cursor,
                                                 std::string_view key) {
    const auto start = cursor.hex_after(key);
    const auto size = cursor.find("size=") ? cursor.decimal() : std::nullopt;
    if (!start || !size || *size == 0)
        return std::nullopt;
    const auto range = IovaRange::make(Iova(*start), ByteCount(*size));
    if (!range)
        return std::nullopt;
    decoded.mapping.range = *range;
    return decoded;
}

[[nodiscard]] std::optional<LogEvent> iommu_event(std::string_view line, std::string_view key,
                                                  LogEvent::Kind kind) {
    TextCursor cursor(line);
    LogEvent decoded{.kind = kind, .origin = Origin::tracepoint};
    if (!find_event(cursor, line, key, decoded.mapping.mapped.time_ns))
        return std::nullopt;
    return with_range(decoded, cursor, "iova=");
}

[[nodiscard]] Allows direction(std::string_view name) {
    if (name == "TO_DEVICE")
        return Allows::read;
    if (name == "FROM_DEVICE")
        return Allows::write;
    return name == "NONE" ? Allows::nothing : Allows::read_write;
}

/// Decodes dma_map_page, dma_map_phys, dma_map_resource, dma_alloc and their opposites. Events of
/// scatter lists name many ranges, or none (unmap): the iommu system's events cover them.
[[nodiscard]] std::optional<LogEvent> dma_event(std::string_view line) {
    struct Name {
        std::string_view key;
        LogEvent::Kind kind;
    };

    constexpr std::array<Name, 7> names = {{
        {" dma_map_page: ", LogEvent::Kind::mapped},
        {" dma_map_phys: ", LogEvent::Kind::mapped},
        {" dma_alloc: ", LogEvent::Kind::mapped},
        {" dma_unmap_page: ", LogEvent::Kind::unmapped},
        {" dma_unmap_phys: ", LogEvent::Kind::unmapped},
        {" dma_free: ", LogEvent::Kind::unmapped},
        {" dma_map_resource: ", LogEvent::Kind::mapped},
    }};
    for (const Name& name : names) {
        TextCursor cursor(line);
        LogEvent decoded{.kind = name.kind, .origin = Origin::tracepoint};
        if (!find_event(cursor, line, name.key, decoded.mapping.mapped.time_ns))
            continue;
        decoded.device = cursor.until(" ");
        if (cursor.accept("dir="))
            decoded.mapping.allows = direction(cursor.until(" "));
        return with_range(decoded, cursor, "dma_addr=");
    }
    return std::nullopt;
}

[[nodiscard]] std::optional<LogEvent> fault_event(std::string_view line) {
    TextCursor cursor(line);
    std::uint64_t time = 0;
    if (!find_event(cursor, line, "io_page_fault: IOMMU:", time))
        return std::nullopt;
    LogEvent decoded{.origin = Origin::tracepoint};
    Record& record = decoded.record;
    const std::string_view driver_and_device = cursor.until(" iova=");
    const auto address = cursor.hex();
    if (!address)
        return std::nullopt;
    decoded.device = driver_and_device.substr(driver_and_device.rfind(' ') + 1);
    record.source = parse_pci_function(decoded.device).value_or(Source());
    record.where = byte_at(*address);
    record.precision = Precision::start;
    record.code = cursor.hex_after("flags=");
    if (record.code)
        record.access = (*record.code & 1) != 0 ? Access::write : Access::read;
    if (time != 0)
        record.time_ns = time;
    return decoded;
}

} // namespace

std::optional<LogEvent> decode_tracepoint(std::string_view line) {
    if (line.find("iova=0x") == line.npos && line.find("dma_addr=") == line.npos)
        return std::nullopt;
    if (auto decoded = iommu_event(line, " map: IOMMU: ", LogEvent::Kind::mapped))
        return decoded;
    if (auto decoded = iommu_event(line, " unmap: IOMMU: ", LogEvent::Kind::unmapped))
        return decoded;
    if (auto decoded = dma_event(line))
        return decoded;
    return fault_event(line);
}

} // namespace moat::fault
