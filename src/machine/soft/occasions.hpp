// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Occasions: which of a device's operations go wrong. The same ones in each run, so that a failure
// can be repeated.
#pragma once

#include <cstdint>
#include <optional>

namespace moat::machine::soft {

/// All operations after the first `after`; with a seed, one in four of these. Operations count
/// from 0.
struct Occasions {
    std::uint64_t after = 0;
    std::optional<std::uint64_t> seed = {};

    [[nodiscard]] constexpr bool include(std::uint64_t operation) const {
        return operation >= after && (!seed || mix(*seed + mix(operation)) % 4 == 0);
    }

    /// The operation from which on a device is wrong for good: with a seed, one of the first 64.
    [[nodiscard]] constexpr std::uint64_t start() const {
        return after + (seed ? mix(*seed) % 64 : 0);
    }

  private:
    /// SplitMix64's output function.
    [[nodiscard]] static constexpr std::uint64_t mix(std::uint64_t value) {
        value += 0x9e3779b97f4a7c15;
        value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
        value = (value ^ value >> 27) * 0x94d049bb133111eb;
        return value ^ value >> 31;
    }
};

} // namespace moat::machine::soft
