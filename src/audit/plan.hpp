// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Which cases an audit consists of: each operation at and around every boundary, then at random.
// A case follows from the seed and its number alone, so that each can be run by itself.
#pragma once

#include "moat/dma/options.hpp"

#include "audit/driver.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace moat::audit {

using dma::Placement;

/// At which end of its pages a buffer lies.
enum class Placements : std::uint8_t { left, right, both };

struct Case {
    std::uint64_t number = 0;
    unsigned operation = 0; ///< its place in Driver::operations
    ByteCount length = {};
    Placement placement = Placement::left;
};

/// Lengths at and around every boundary that `operation` can have: its own, a block's, a page's,
/// two pages', and where a list of pages fills a page.
[[nodiscard]] std::vector<ByteCount> boundary_lengths(const Operation& operation);

class Plan {
  public:
    /// Cases come in rounds of one placement each, because queues are placed when a driver starts:
    /// each boundary once, and then many random ones, so that starts cost little.
    Plan(std::span<const Operation> operations, Placements placements, std::uint64_t seed);

    [[nodiscard]] Case at(std::uint64_t number) const;

    /// The first case of the round after that of case `number`; the last number there is where that
    /// is none.
    [[nodiscard]] std::uint64_t round_end(std::uint64_t number) const;

    /// How many cases there are until each boundary was seen at each placement.
    [[nodiscard]] std::uint64_t systematic() const {
        return boundary_.size() * (placements_ == Placements::both ? 2 : 1);
    }

    /// Of a case, before its operations are known.
    [[nodiscard]] static Placement placement_of_round(Placements placements, std::uint64_t round);

  private:
    static constexpr std::uint64_t random_round = 1024;

    struct Shape {
        unsigned operation;
        ByteCount length;
    };

    [[nodiscard]] std::uint64_t round_of(std::uint64_t number) const;

    std::vector<Operation> operations_;
    std::vector<Shape> boundary_;
    Placements placements_;
    std::uint64_t seed_;
};

/// A number that is as good as random, from two.
[[nodiscard]] constexpr std::uint64_t mixed(std::uint64_t seed, std::uint64_t number) {
    std::uint64_t value = seed * 0x9e3779b97f4a7c15 + number + 0x9e3779b97f4a7c15;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
}

} // namespace moat::audit
