// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RecordFields: the fields of a record by their names.
#pragma once

#include "event_format.hpp"

namespace moat::watch {

/// A view of both.
class RecordFields {
  public:
    RecordFields(RecordBytes record, const EventFormat& format)
        : record_(record), format_(format) {}

    [[nodiscard]] bool has(std::string_view name) const { return format_.find(name) != nullptr; }

    [[nodiscard]] std::optional<std::uint64_t> number(std::string_view name) const {
        const EventField* field = format_.find(name);
        return field == nullptr ? std::nullopt : number_of(record_, *field);
    }

    [[nodiscard]] std::string_view text(std::string_view name) const {
        const EventField* field = format_.find(name);
        return field == nullptr ? std::string_view() : text_of(record_, *field);
    }

    [[nodiscard]] std::vector<std::uint64_t> numbers(std::string_view name) const {
        const EventField* field = format_.find(name);
        return field == nullptr ? std::vector<std::uint64_t>() : numbers_of(record_, *field);
    }

  private:
    RecordBytes record_;
    const EventFormat& format_;
};

} // namespace moat::watch
