// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Limits: what a program may map, as `--limit NAME=VALUE` sets it.
#pragma once

#include "moat/core/range.hpp"

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace moat::run {

struct Limits {
    std::uint64_t entries = 65'535;                ///< mappings of a container
    std::uint64_t locked = std::uint64_t{1} << 62; ///< bytes of all mappings
    unsigned bits = 39;                            ///< of the addresses that devices reach
    std::vector<IovaRange> reserved = {}; ///< addresses that cannot be mapped, in any order

    /// The addresses that can be mapped, sorted: below 2^bits, without `reserved` and without the
    /// range of interrupts.
    [[nodiscard]] std::vector<IovaRange> aperture() const;
};

/// Applies "entries=16", "locked=1M", "bits=32" or "reserved=0x1000-0x1fff". Error: what is wrong.
[[nodiscard]] std::expected<void, std::string> apply_limit(Limits& limits, std::string_view text);

/// The same, one of them a string.
[[nodiscard]] std::vector<std::string> to_texts(const Limits& limits);

} // namespace moat::run
