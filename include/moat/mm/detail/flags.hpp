// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FlagClearer: collects and clears accessed and dirty, block by block, each under its lock.
// AddressSpace::clear_accessed_dirty calls it.
#pragma once

#include "moat/mm/detail/blocks.hpp"

#include <cstdint>

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
             result && vma != nullptr && vma->range.start() <= range.last();) {
            for_each_block(core_, vma->range.intersection(range),
                           [&](VirtualRange part) { result = result ? clear(part) : result; });
            const std::uint64_t next = vma->range.last().value() + 1;
            vma = next == 0 ? nullptr : view.at_or_above(VirtualAddress(next));
        }
        return result;
    }

  private:
    Result<void> clear(VirtualRange range) {
        auto notifying = core_.notifying(Change::flags);
        auto edit = core_.tables.edit(notifying);
        const auto visit = [&](VirtualAddress start, ByteCount size, Attributes had) {
            const Spot spot = core_.look(start);
            MOAT_CHECK(spot.is_leaf, "a leaf whose flags were cleared is there still");
            if (auto* const frame = core_.memory.frame(spot.leaf.physical);
                frame != nullptr && has(had, Attributes::dirty))
                frame->flags.fetch_or(Frame<Sync>::dirty, std::memory_order_relaxed);
            visit_(LeafView{start, spot.leaf.physical, floor_lg2(size.value()), had});
        };
        const auto done = edit.clear_accessed_dirty(range.start(), range.size(), which_, visit);
        edit.finish();
        return done;
    }

    Core& core_;
    const Attributes which_;
    Visit& visit_;
};

} // namespace moat::mm
