// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/contents.hpp"

#include "audit/pattern.hpp"

#include <algorithm>

namespace moat::audit {

void Contents::begin(const Medium& medium) {
    if (medium.is_kept && medium_.size == medium.size && medium_.unit == medium.unit)
        return;
    medium_ = medium;
    writers_.assign(units_used(medium), unknown);
}

void Contents::fill(std::span<std::byte> data, const Medium& medium, const Case& about) {
    fill_pattern(data, {about.number, about.position * medium.unit.value()});
}

void Contents::note(const Case& about, bool is_certain) {
    const std::uint64_t unit = medium_.unit.value();
    const std::uint64_t first = std::min<std::uint64_t>(about.position, writers_.size());
    const std::uint64_t whole = is_certain ? about.length.value() / unit : 0;
    const std::uint64_t touched = (about.length.value() + unit - 1) / unit;
    const auto units = std::span(writers_).subspan(first);
    const auto end = units.begin() + static_cast<std::ptrdiff_t>(std::min(touched, units.size()));
    const auto known = units.begin() + static_cast<std::ptrdiff_t>(std::min(whole, units.size()));
    std::fill(units.begin(), known, about.number);
    std::fill(known, end, unknown);
}

std::optional<WrongData> Contents::compare(std::span<const std::byte> data,
                                           const Case& about) const {
    std::optional<WrongData> wrong;
    const std::uint64_t unit = medium_.unit.value();
    for (std::uint64_t offset = 0; offset < data.size();) {
        const std::uint64_t first = about.position + offset / unit;
        if (first >= writers_.size())
            break;
        const std::uint64_t writer = writers_[first];
        std::uint64_t last = first + 1;
        while (last < writers_.size() && writers_[last] == writer &&
               (last - about.position) * unit < data.size())
            ++last;
        const std::uint64_t end = std::min((last - about.position) * unit, data.size());
        const auto here = data.subspan(offset, end - offset);
        if (const WrongWords words =
                writer == unknown ? WrongWords{} : compare_pattern(here, {writer, first * unit});
            words.bytes != 0) {
            if (!wrong)
                wrong = {.offset = offset + words.first,
                         .expected = {writer, first * unit + words.first},
                         .first_case = writer};
            wrong->bytes += words.bytes;
            wrong->first_case = std::min(wrong->first_case, writer);
        }
        offset = end;
    }
    if (!wrong)
        return wrong;
    if (const auto origin =
            origin_of(data.subspan(wrong->offset), about.number, writers_.size() * unit)) {
        wrong->origin = *origin;
        wrong->first_case = std::min(wrong->first_case, origin->case_number);
    }
    return wrong;
}

} // namespace moat::audit
