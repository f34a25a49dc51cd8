// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A small random generator, so that a seed gives the same numbers everywhere (splitmix64, Vigna).
// Used by the random strategies and by the generator of programs in the tests.
#pragma once

#include <cstdint>

namespace moat::explore {

class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t next() {
        std::uint64_t mixed = state_ += 0x9e3779b97f4a7c15;
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
        return mixed ^ (mixed >> 31);
    }

    /// 0 .. bound - 1.
    unsigned below(unsigned bound) { return static_cast<unsigned>(((next() >> 32) * bound) >> 32); }

  private:
    std::uint64_t state_;
};

} // namespace moat::explore
