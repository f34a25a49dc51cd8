// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FlagClearer: collects and clears accessed and dirty, block by block, each under its lock.
// AddressSpace::clear_accessed_dirty calls it.
#pragma once

#include "moat/mm/detail/blocks.hpp"

namespace moat::mm {

template <class Core, class Visit>
class FlagClearer {
  public:
    using Sync = typename Core::Sync;

    FlagClearer(Core& core, Attributes which, Visit& visit)
        : core_(core), which_(which), visit_(visit) {}

    /// The caller holds the lock of all VMAs, so that nothing cuts a leaf meanwhile.
    Result<void> run(VirtualRange range) {
        Result<void> result;
        const auto view = core_.vmas.view();
        for (const auto* vma = view.at_or_above(range.start());
             result && vma != nullptr && vma->range.start() <= range.last(); vma = view.after(*vma))
            for_each_block(core_, vma->range.intersection(range),
                           [&](VirtualRange part) { result = result ? clear(part) : result; });
        return result;
    }

  private:
    Result<void> clear(VirtualRange range) {
        const auto visit = [&](VirtualAddress start, ByteCount size, Attributes had) {
            const Spot spot = core_.look(start);
            MOAT_CHECK(spot.is_leaf, "a leaf whose flags were cleared is there still");
            if (auto* const frame = core_.memory.frame(spot.leaf.physical);
                frame != nullptr && has(had, Attributes::dirty))
                frame->flags.fetch_or(Frame<Sync>::dirty, std::memory_order_relaxed);
            visit_(LeafView{start, spot.leaf.physical, floor_lg2(size.value()), had});
        };
        return core_.edit(Change::flags, [&](auto& edit) {
            return edit.clear_accessed_dirty(range.start(), range.size(), which_, visit);
        });
    }

    Core& core_;
    const Attributes which_;
    Visit& visit_;
};

} // namespace moat::mm
