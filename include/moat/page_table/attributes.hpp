// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A leaf's permissions and memory type, the same for every format. page_table/formats/ has the
// bits.
#pragma once

#include <bit>
#include <cstdint>

namespace moat {

/// A set of properties of one leaf; combine with |.
enum class Attributes : std::uint32_t {
    none = 0,
    read = 1U << 0,
    write = 1U << 1,
    execute = 1U << 2,
    user = 1U << 3,     ///< reachable by unprivileged code
    global = 1U << 4,   ///< the same in every address space
    uncached = 1U << 5, ///< device registers: no caching, no reordering
    special = 1U << 6,  ///< memory without page metadata (a device's); never split
    snoop = 1U << 7,    ///< the IOMMU forces the access to be cache-coherent
    accessed = 1U << 8, ///< the leaf was used; preset where its absence would fault
    dirty = 1U << 9,    ///< the leaf was written to; preset where its absence would fault
};

[[nodiscard]] constexpr Attributes operator|(Attributes a, Attributes b) {
    return static_cast<Attributes>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}

[[nodiscard]] constexpr Attributes operator&(Attributes a, Attributes b) {
    return static_cast<Attributes>(static_cast<std::uint32_t>(a) & static_cast<std::uint32_t>(b));
}

/// `a` without `b`.
[[nodiscard]] constexpr Attributes operator-(Attributes a, Attributes b) {
    return static_cast<Attributes>(static_cast<std::uint32_t>(a) & ~static_cast<std::uint32_t>(b));
}

constexpr Attributes& operator|=(Attributes& a, Attributes b) {
    return a = a | b;
}

/// Whether every property of `wanted` is in `set`.
[[nodiscard]] constexpr bool has(Attributes set, Attributes wanted) {
    return (set & wanted) == wanted;
}

inline constexpr Attributes read_only = Attributes::read;
inline constexpr Attributes read_write = Attributes::read | Attributes::write;

/// The properties that hardware may set in a live leaf.
inline constexpr Attributes accessed_and_dirty = Attributes::accessed | Attributes::dirty;

namespace detail {

/// `word` if `set` has `property`, else 0; without a branch.
[[nodiscard]] constexpr std::uint64_t word_if(Attributes set, Attributes property,
                                              std::uint64_t word) {
    return has(set, property) ? word : 0;
}

/// The `properties` whose bits are set in `word`. The bits of `mask` stand for them in the same
/// order and at the same distances, so that this is one mask and one shift.
[[nodiscard]] constexpr Attributes properties_in(std::uint64_t word, std::uint64_t mask,
                                                 Attributes properties) {
    const int to = std::countr_zero(static_cast<std::uint32_t>(properties));
    const int from = std::countr_zero(mask);
    const std::uint64_t bits = word & mask;
    return static_cast<Attributes>(to >= from ? bits << (to - from) : bits >> (from - to));
}

} // namespace detail

} // namespace moat
