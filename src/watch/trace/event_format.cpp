// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "event_format.hpp"

#include "core/parse.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <system_error>

namespace moat::watch {

namespace {

constexpr std::uint32_t most_field_bytes = 1U << 16; // a record fits a page of the ring

/// The decimal number behind `key`; nothing without one below `limit`.
std::optional<std::uint32_t> number_behind(std::string_view text, std::string_view key,
                                           std::uint32_t limit) {
    const std::size_t at = text.find(key);
    if (at == std::string_view::npos)
        return std::nullopt;
    const std::string_view digits = text.substr(at + key.size());
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || value >= limit)
        return std::nullopt;
    return value;
}

/// The size of an array's elements, by their C type.
std::uint32_t element_bytes(std::string_view type) {
    struct Known {
        std::string_view part;
        std::uint32_t bytes;
    };

    // The first part that the type contains counts.
    static constexpr std::array<Known, 12> known = {{{"*", 8},
                                                     {"64", 8},
                                                     {"32", 4},
                                                     {"16", 2},
                                                     {"u8", 1},
                                                     {"s8", 1},
                                                     {"dma_addr_t", 8},
                                                     {"long", 8},
                                                     {"size_t", 8},
                                                     {"short", 2},
                                                     {"char", 1},
                                                     {"int", 4}}};
    for (const Known& each : known)
        if (type.find(each.part) != std::string_view::npos)
            return each.bytes;
    return 1;
}

/// Reads "__data_loc u64[] dma_addrs" or "unsigned long caller[8]" into the name, the place and the
/// size of elements.
bool parse_declaration(std::string_view text, EventField& field) {
    for (const auto& [prefix, place] : {std::pair{"__data_loc ", FieldPlace::data_loc},
                                        std::pair{"__rel_loc ", FieldPlace::rel_loc}})
        if (text.starts_with(prefix)) {
            field.place = place;
            text.remove_prefix(std::string_view(prefix).size());
        }
    const std::size_t space = text.rfind(' ');
    if (space == std::string_view::npos)
        return false;
    std::string_view name = text.substr(space + 1);
    const bool is_array = name.ends_with(']') || text.substr(0, space).ends_with("[]");
    name = name.substr(0, name.find('['));
    field.name = name;
    field.element_size = is_array ? element_bytes(text.substr(0, space)) : field.size;
    return !name.empty();
}

/// Reads "TYPE NAME;\toffset:8;\tsize:4;\tsigned:0;".
std::optional<EventField> parse_field(std::string_view text) {
    const auto offset = number_behind(text, "offset:", most_field_bytes);
    const auto size = number_behind(text, "size:", most_field_bytes);
    EventField field;
    if (!offset || !size)
        return std::nullopt;
    field.offset = *offset;
    field.size = *size;
    field.is_signed = number_behind(text, "signed:", 2) == 1U;
    if (!parse_declaration(text.substr(0, text.find(';')), field))
        return std::nullopt;
    return field;
}

std::optional<std::uint64_t> number_at(RecordBytes record, std::size_t offset, std::size_t size,
                                       bool is_signed) {
    if (offset > record.size() || size > record.size() - offset)
        return std::nullopt;
    const auto read = [&]<class Unsigned, class Signed>(Unsigned value, Signed /*type*/) {
        std::memcpy(&value, record.data() + offset, sizeof value);
        return is_signed ? static_cast<std::uint64_t>(std::int64_t{static_cast<Signed>(value)})
                         : std::uint64_t{value};
    };
    switch (size) {
    case 1:
        return read(std::uint8_t{}, std::int8_t{});
    case 2:
        return read(std::uint16_t{}, std::int16_t{});
    case 4:
        return read(std::uint32_t{}, std::int32_t{});
    case 8:
        return read(std::uint64_t{}, std::int64_t{});
    default:
        return std::nullopt;
    }
}

/// The field's own bytes, as many as the record has.
RecordBytes bytes_of(RecordBytes record, const EventField& field) {
    std::size_t start = field.offset;
    std::size_t size = field.size;
    if (field.place != FieldPlace::here) {
        const auto location = number_at(record, field.offset, 4, false);
        if (!location)
            return {};
        start = *location & 0xffff;
        size = *location >> 16;
        if (field.place == FieldPlace::rel_loc)
            start += std::size_t{field.offset} + field.size;
    }
    start = std::min(start, record.size());
    return record.subspan(start, std::min(size, record.size() - start));
}

} // namespace

const EventField* EventFormat::find(std::string_view wanted) const {
    const auto found = std::ranges::find(fields, wanted, &EventField::name);
    return found == fields.end() ? nullptr : &*found;
}

std::optional<EventFormat> parse_event_format(std::string_view text) {
    EventFormat format;
    std::optional<std::uint32_t> id;
    while (!text.empty()) {
        std::string_view line = take_until(text, '\n');
        if (line.starts_with("print fmt:"))
            break;
        if (line.starts_with("name: "))
            format.name = line.substr(6);
        else if (line.starts_with("ID: "))
            id = number_behind(line, "ID: ", 1U << 16);
        else if (const std::size_t at = line.find("field:"); at != std::string_view::npos)
            if (auto field = parse_field(line.substr(at + 6)))
                format.fields.push_back(std::move(*field));
    }
    if (format.name.empty() || !id || format.fields.empty())
        return std::nullopt;
    format.id = *id;
    return format;
}

std::optional<std::uint64_t> number_of(RecordBytes record, const EventField& field) {
    if (field.place != FieldPlace::here)
        return std::nullopt;
    return number_at(record, field.offset, field.size, field.is_signed);
}

std::string_view text_of(RecordBytes record, const EventField& field) {
    const RecordBytes bytes = bytes_of(record, field);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return text.substr(0, text.find('\0'));
}

std::vector<std::uint64_t> numbers_of(RecordBytes record, const EventField& field) {
    const RecordBytes bytes = bytes_of(record, field);
    std::vector<std::uint64_t> numbers;
    if (field.element_size == 0)
        return numbers;
    for (std::size_t at = 0; at + field.element_size <= bytes.size(); at += field.element_size)
        if (const auto number = number_at(bytes, at, field.element_size, field.is_signed))
            numbers.push_back(*number);
    return numbers;
}

} // namespace moat::watch
