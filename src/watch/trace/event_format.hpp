// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// EventFormat: the layout of one kind of trace record, from its `format` file in tracefs, and
// reads of its fields that stay within the record. Formats and records are hostile input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moat::watch {

using RecordBytes = std::span<const std::byte>;

/// Where a field's bytes are.
enum class FieldPlace : std::uint8_t {
    here,     ///< at the field
    data_loc, ///< the field holds length << 16 | offset from the record's start
    rel_loc,  ///< the field holds length << 16 | offset from the field's end
};

struct EventField {
    std::string name = {};
    std::uint32_t offset = 0;
    std::uint32_t size = 0;
    std::uint32_t element_size = 0; ///< of an array: 1, 2, 4 or 8; otherwise `size`
    FieldPlace place = FieldPlace::here;
    bool is_signed = false;
};

struct EventFormat {
    std::string name = {};
    std::uint32_t id = 0;
    std::vector<EventField> fields = {};

    /// The field with that name, or nullptr.
    [[nodiscard]] const EventField* find(std::string_view wanted) const;
};

/// The format that the text of a `format` file describes; nothing without a name, an ID and a
/// field. Skips fields that it cannot read.
[[nodiscard]] std::optional<EventFormat> parse_event_format(std::string_view text);

/// The value of a field of 1, 2, 4 or 8 bytes, sign-extended; nothing if the record lacks it.
[[nodiscard]] std::optional<std::uint64_t> number_of(RecordBytes record, const EventField& field);

/// The field's characters up to the first zero; empty if the record lacks them.
[[nodiscard]] std::string_view text_of(RecordBytes record, const EventField& field);

/// The elements of an array; those that the record has in whole.
[[nodiscard]] std::vector<std::uint64_t> numbers_of(RecordBytes record, const EventField& field);

} // namespace moat::watch
