// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/plan.hpp"

#include "moat/core/check.hpp"

#include <algorithm>
#include <array>

namespace moat::audit {

namespace {

constexpr std::uint64_t page = 4096;
/// The bytes that one page of a list covers.
constexpr std::uint64_t list_of_a_page = 512 * page;

/// Without a granule, a length is any number of bytes.
std::uint64_t granule_of(const Operation& operation) {
    return std::max<std::uint64_t>(operation.granule.value(), 1);
}

} // namespace

std::uint64_t units_used(const Medium& medium) {
    constexpr std::uint64_t most = std::uint64_t{16} << 20;
    return std::min(medium.size.value(), most) / medium.unit.value();
}

std::vector<ByteCount> boundary_lengths(const Operation& operation) {
    if (operation.longest == ByteCount(0))
        return {ByteCount(0)};
    const std::uint64_t granule = granule_of(operation);
    const std::uint64_t shortest = std::max(operation.shortest.value(), granule);
    const std::uint64_t longest = operation.longest.value() / granule * granule;
    std::vector<std::uint64_t> lengths = {shortest, longest};
    for (const std::uint64_t boundary : {granule, std::uint64_t{64}, std::uint64_t{512}, page,
                                         2 * page, 3 * page, list_of_a_page}) {
        const std::uint64_t at = boundary / granule * granule;
        for (const std::uint64_t length : {at - granule, at, at + granule})
            if (length >= shortest && length <= longest)
                lengths.push_back(length);
    }
    std::ranges::sort(lengths);
    const auto repeated = std::ranges::unique(lengths);
    lengths.erase(repeated.begin(), repeated.end());
    std::vector<ByteCount> counts;
    for (const std::uint64_t length : lengths)
        counts.emplace_back(length);
    return counts;
}

Plan::Plan(std::span<const Operation> operations, Placements placements, std::uint64_t seed,
           const Medium& medium)
    : operations_(operations.begin(), operations.end()), placements_(placements), seed_(seed),
      medium_(medium) {
    MOAT_CHECK(!operations.empty(), "a driver can do something");
    for (unsigned index = 0; index != operations_.size(); ++index)
        for (const ByteCount length : boundary_lengths(operations_[index]))
            boundary_.push_back({index, length});
}

Placement Plan::placement_of_round(Placements placements, std::uint64_t round) {
    if (placements == Placements::both)
        return round % 2 == 0 ? Placement::left : Placement::right;
    return placements == Placements::left ? Placement::left : Placement::right;
}

std::uint64_t Plan::round_of(std::uint64_t number) const {
    return number < systematic()
               ? number / boundary_.size()
               : systematic() / boundary_.size() + (number - systematic()) / random_round;
}

std::uint64_t Plan::round_end(std::uint64_t number) const {
    if (number < systematic())
        return (number / boundary_.size() + 1) * boundary_.size();
    const std::uint64_t left = (number - systematic()) / random_round * random_round;
    const std::uint64_t start = systematic() + left;
    return start <= ~std::uint64_t{0} - random_round ? start + random_round : ~std::uint64_t{0};
}

/// Few places, so that loads find what was stored: the start, beside it (which overlaps), apart
/// from it, and the end.
std::uint64_t Plan::position_of(const Case& about) const {
    const std::uint64_t unit = medium_.unit.value();
    const std::uint64_t needed = (about.length.value() + unit - 1) / unit;
    const std::uint64_t all = units_used(medium_);
    if (operations_[about.operation].content == Content::none || needed > all)
        return 0;
    const std::uint64_t random = mixed(~seed_, about.number);
    const std::uint64_t few = random / 4 % 8;
    constexpr std::uint64_t apart = 16;
    const std::array<std::uint64_t, 4> places = {0, few, few * apart, all};
    return std::min(places.at(random % 4), all - needed);
}

Case Plan::at(std::uint64_t number) const {
    Case made = shape_at(number);
    made.position = position_of(made);
    return made;
}

Case Plan::shape_at(std::uint64_t number) const {
    Case made{.number = number, .placement = placement_of_round(placements_, round_of(number))};
    if (number < systematic()) {
        const Shape& shape = boundary_[number % boundary_.size()];
        made.operation = shape.operation;
        made.length = shape.length;
        return made;
    }
    std::uint64_t random = mixed(seed_, number);
    made.operation = static_cast<unsigned>(random % operations_.size());
    random /= operations_.size();
    const Operation& operation = operations_[made.operation];
    if (operation.longest == ByteCount(0))
        return made;
    const std::uint64_t granule = granule_of(operation);
    const std::uint64_t shortest = std::max(operation.shortest.value(), granule);
    // Mostly a few pages: long transfers take long and differ little.
    const bool is_long = random % 256 == 0;
    const std::uint64_t most =
        is_long ? operation.longest.value() : std::min(operation.longest.value(), 4 * page);
    const std::uint64_t choices = (std::max(most, shortest) - shortest) / granule + 1;
    const std::uint64_t length = shortest + random / 256 % choices * granule;
    made.length = ByteCount(length / granule * granule);
    return made;
}

} // namespace moat::audit
