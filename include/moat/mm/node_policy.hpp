// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// From which NUMA nodes a mapping takes its frames, in the words of set_mempolicy(2).
// No memory here: physical_memory.hpp asks in this order.
#pragma once

#include "moat/core/bits.hpp"

#include <bit>
#include <cstdint>

namespace moat::mm {

inline constexpr unsigned most_nodes = 32;

enum class NodeMode : std::uint8_t {
    standard,   ///< the home node of the address space first, then any
    prefer,     ///< the first node of the set, then any
    bind,       ///< nodes of the set and no others
    interleave, ///< page after page from the nodes of the set in turn, then any
};

struct NodePolicy {
    NodeMode mode = NodeMode::standard;
    std::uint32_t nodes = 0; ///< bit n: node n; not empty unless `standard`

    friend constexpr bool operator==(const NodePolicy&, const NodePolicy&) = default;

    /// The node that is asked first for page number `page`.
    [[nodiscard]] constexpr unsigned first(unsigned home, std::uint64_t page) const {
        if (mode == NodeMode::standard || nodes == 0)
            return home;
        std::uint32_t left = nodes;
        if (mode == NodeMode::interleave)
            for (auto skip = page % static_cast<unsigned>(std::popcount(nodes)); skip != 0; --skip)
                left &= left - 1;
        return static_cast<unsigned>(std::countr_zero(left));
    }

    [[nodiscard]] constexpr bool allows(unsigned node) const {
        return mode != NodeMode::bind || (nodes >> node & 1) != 0;
    }
};

} // namespace moat::mm
