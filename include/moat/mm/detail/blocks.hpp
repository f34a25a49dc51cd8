// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// for_each_block: visits the parts of a range that one lock each guards, under that lock. For
// changes of leaves that stay; zap.hpp, whose leaves go, has its own loop.
#pragma once

#include "moat/mm/detail/core.hpp"

#include <algorithm>
#include <cstdint>

namespace moat::mm {

/// Calls `change(VirtualRange part)` for each part of the range, which lies in one VMA, that may
/// have leaves: one leaf of 1 GiB, or a block of 2 MiB.
template <class Core, class Change>
void for_each_block(Core& core, VirtualRange range, Change change) {
    using Lock = typename Core::Lock;
    for (std::uint64_t at = range.start().value();;) {
        const std::uint64_t part_last = std::min(at | low_bits(pud_lg2), range.last().value());
        bool is_table = false;
        {
            const Lock lock(core.pud_locks.of(at));
            const Spot spot = core.look(VirtualAddress(at));
            is_table = spot.level < 2;
            if (!is_table && spot.is_leaf)
                change(spot.leaf.range());
        }
        for (std::uint64_t block = at; is_table;) {
            const Lock lock(core.pmd_locks.of(block));
            const std::uint64_t last = std::min(block | low_bits(pmd_lg2), part_last);
            change(VirtualRange::inclusive(VirtualAddress(block), VirtualAddress(last)));
            if (last == part_last)
                break;
            block = last + 1;
        }
        if (part_last == range.last().value())
            return;
        at = part_last + 1;
    }
}

} // namespace moat::mm
