// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The cases of an audit: each operation at and around every boundary, then at random. The seed and
// a case's number determine the case, so each can run alone.
#pragma once

#include "moat/dma/options.hpp"

#include "audit/driver.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace moat::audit {

using dma::Placement;

/// The end of its pages at which a buffer lies.
enum class Placements : std::uint8_t { left, right, both };

struct Case {
    std::uint64_t number = 0;
    unsigned operation = 0; ///< an index in Driver::operations
    ByteCount length = {};
    Placement placement = Placement::left;
    std::uint64_t position = 0; ///< on the medium, in its unit
};

/// Lengths at and around the boundaries of `operation`: its own, a block's, a page's, two and three
/// pages', and the length at which a list of pages fills a page.
[[nodiscard]] std::vector<ByteCount> boundary_lengths(const Operation& operation);

/// How many units of a medium the cases use: all of a small one.
[[nodiscard]] std::uint64_t units_used(const Medium& medium);

class Plan {
  public:
    /// A round has one placement, because queues are placed when a driver starts: rounds of each
    /// boundary first, then of many random cases, since a start is expensive.
    Plan(std::span<const Operation> operations, Placements placements, std::uint64_t seed,
         const Medium& medium = {});

    [[nodiscard]] Case at(std::uint64_t number) const;

    /// The first case of the next round, or the last number if there is none.
    [[nodiscard]] std::uint64_t round_end(std::uint64_t number) const;

    /// How many cases test each boundary at each placement.
    [[nodiscard]] std::uint64_t systematic() const {
        return boundary_.size() * (placements_ == Placements::both ? 2 : 1);
    }

    /// The placement of a round, without knowing the operations.
    [[nodiscard]] static Placement placement_of_round(Placements placements, std::uint64_t round);

  private:
    static constexpr std::uint64_t random_round = 1024;

    struct Shape {
        unsigned operation;
        ByteCount length;
    };

    [[nodiscard]] std::uint64_t round_of(std::uint64_t number) const;
    [[nodiscard]] Case shape_at(std::uint64_t number) const;
    [[nodiscard]] std::uint64_t position_of(const Case& about) const;

    std::vector<Operation> operations_;
    std::vector<Shape> boundary_;
    Placements placements_;
    std::uint64_t seed_;
    Medium medium_;
};

/// A pseudo-random number from two numbers.
[[nodiscard]] constexpr std::uint64_t mixed(std::uint64_t seed, std::uint64_t number) {
    std::uint64_t value = seed * 0x9e3779b97f4a7c15 + number + 0x9e3779b97f4a7c15;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
}

} // namespace moat::audit
