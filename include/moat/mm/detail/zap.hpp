// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Zapper: removes leaves, block by block, each under its lock; and splits single leaves.
// AddressSpace's zap, revoke, unmap and split_leaf call it; address_space.hpp has the protocol.
#pragma once

#include "moat/mm/detail/core.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace moat::mm {

/// Whether another thread may replace the VMA meanwhile.
enum class VmaIs : std::uint8_t {
    looked_up, ///< yes: test under each block's lock whether it is still attached
    ours       ///< no: the caller detached it, or holds the lock of all VMAs
};

template <class Core>
class Zapper {
  public:
    using Sync = typename Core::Sync;
    using Attached = typename Core::Attached;
    using Lock = typename Core::Lock;

    explicit Zapper(Core& core) : core_(core) {}

    /// The totals of all calls so far.
    [[nodiscard]] const Zapped& zapped() const { return zapped_; }

    /// Removes the leaves of `range`, which lies in the VMA. At the ends it removes a device's leaf
    /// as a whole and splits RAM. It stops early where it finds the VMA replaced: see finished()
    /// and reached(). Errors: no_memory (for splitting), at reached().
    Result<void> run(const Attached& vma, VirtualRange range, VmaIs is) {
        reached_ = range.start();
        last_ = range.last();
        finished_ = false;
        while (!finished_) {
            const auto last = std::min(last_, VirtualAddress(reached_.value() | low_bits(pud_lg2)));
            const Block block = top(vma, last, is);
            if (block == Block::stale)
                return {};
            if (block == Block::table) {
                MOAT_LET(const Block below, bottom(vma, last, is));
                if (below == Block::stale)
                    return {};
            }
        }
        return {};
    }

    /// Whether the last run reached the end of its range.
    [[nodiscard]] bool finished() const { return finished_; }

    /// The address where the last run stopped, if it is not finished.
    [[nodiscard]] VirtualAddress reached() const { return reached_; }

    /// Splits the leaf of 2^size_lg2 bytes at `address`, or unmaps it, as `device` says.
    LeafChange split_leaf(const Attached& vma, VirtualAddress address, unsigned size_lg2,
                          DeviceLeaf device) {
        const Lock lock(core_.block_lock(address, size_lg2));
        if (!vma.attached())
            return LeafChange::gone;
        return split_locked(vma, address, size_lg2, device);
    }

    /// The same, with the lock of the leaf's block held and the VMA attached.
    LeafChange split_locked(const Attached& vma, VirtualAddress address, unsigned size_lg2,
                            DeviceLeaf device) {
        const Spot spot = core_.look(address);
        if (!spot.is_leaf || spot.leaf.size_lg2 != size_lg2)
            return LeafChange::gone;
        if (vma.mapping.kind == VmaKind::device) {
            if (device == DeviceLeaf::keep)
                return LeafChange::refused;
            remove(spot.leaf.range(), Tables::keep);
            return LeafChange::unmapped;
        }
        if (vma.mapping.kind != VmaKind::anonymous || size_lg2 == frame_lg2)
            return LeafChange::refused;
        return split_ram(spot.leaf, VirtualAddress(spot.leaf.start.value() + bit(frame_lg2)))
                   ? LeafChange::split
                   : LeafChange::no_memory;
    }

    /// Makes `at` a boundary of leaves: removes a device's leaf, splits RAM. The caller holds the
    /// locks of both levels. Return: false without memory for the table; nothing changes then.
    [[nodiscard]] bool cut_leaf(const Attached& vma, VirtualAddress at) {
        const Spot spot = core_.look(at);
        if (!spot.is_leaf || spot.leaf.start == at)
            return true;
        if (vma.mapping.kind == VmaKind::anonymous)
            return split_ram(spot.leaf, at);
        remove(spot.leaf.range(), Tables::keep);
        return true;
    }

  private:
    enum class Block : std::uint8_t { done, table, stale };
    enum class Tables : std::uint8_t { keep, remove };

    struct Removed {
        VirtualAddress start;
        PhysicalAddress physical;
        unsigned size_lg2;
    };

    /// A visitor that collects leaves until it is full. Its array is not initialised.
    struct Batch {
        static constexpr unsigned most = 64;

        explicit Batch(typename Core::Memory& physical) : memory(physical) {}

        typename Core::Memory& memory;
        unsigned count = 0;
        std::uint64_t bytes = 0;
        VirtualAddress last;
        bool wants_dirty = false;
        std::array<Removed, most> leaves;

        template <unsigned L>
        WalkControl leaf(VirtualAddress start, const Leaf<typename Core::Types, L>& found) {
            leaves[count++] = {start, found.physical(), found.size_lg2()};
            bytes += found.size().value();
            last = VirtualAddress(start.value() + (found.size().value() - 1));
            wants_dirty = wants_dirty || keeps_dirty(found.physical());
            return count == most ? WalkControl::stop : WalkControl::next;
        }

        /// Whether its frame outlives the mapping, and so must keep the dirty flag.
        [[nodiscard]] bool keeps_dirty(PhysicalAddress physical) const {
            using FrameType = Frame<Sync>;
            const FrameType* const frame = memory.frame(physical);
            return frame != nullptr &&
                   (frame->flags.load(std::memory_order_relaxed) & FrameType::anonymous) == 0 &&
                   !memory.is_zero(physical);
        }
    };

    /// The entry of level 2 for reached_ .. last. TABLE is absorbing, so one look without the lock
    /// is enough to descend, and zaps of pages do not contend here; bottom() tests the VMA.
    Block top(const Attached& vma, VirtualAddress last, VmaIs is) {
        if (core_.look(reached_).level < 2)
            return Block::table;
        const Lock lock(core_.pud_locks.of(reached_.value()));
        if (is == VmaIs::looked_up && !vma.attached())
            return Block::stale;
        const Spot spot = core_.look(reached_);
        if (spot.level < 2)
            return Block::table;
        if (spot.is_leaf) {
            MOAT_CHECK(vma.mapping.kind == VmaKind::device ||
                           (is_aligned(reached_.value(), pud_lg2) &&
                            is_aligned(last.value() + 1, pud_lg2)),
                       "an explicit huge page cannot be cut");
            remove(spot.leaf.range(), Tables::keep);
        }
        advance(last);
        return Block::done;
    }

    /// The blocks of 2 MiB from reached_ to last, below an entry of level 2 that is a table.
    Result<Block> bottom(const Attached& vma, VirtualAddress pud_last, VmaIs is) {
        for (;;) {
            const auto last =
                std::min(pud_last, VirtualAddress(reached_.value() | low_bits(pmd_lg2)));
            const Lock lock(core_.pmd_locks.of(reached_.value()));
            if (is == VmaIs::looked_up && !vma.attached())
                return Block::stale;
            MOAT_TRY(zap_block(vma, last));
            const bool was_last = last == pud_last;
            advance(last);
            if (was_last)
                return Block::done;
        }
    }

    void advance(VirtualAddress last) {
        finished_ = last == last_;
        reached_ = VirtualAddress(last.value() + 1);
    }

    /// reached_ .. last, in one block of 2 MiB, whose lock is held.
    Result<void> zap_block(const Attached& vma, VirtualAddress last) {
        VirtualRange range = VirtualRange::inclusive(reached_, last);
        const Spot spot = core_.look(reached_);
        if (!spot.is_leaf && spot.level > 0)
            return {};
        if (spot.is_leaf && spot.level == 1 && !range.contains(spot.leaf.range())) {
            if (vma.mapping.kind != VmaKind::anonymous ||
                core_.memory.behind(spot.leaf.physical) != Behind::ram) {
                range = spot.leaf.range();
            } else {
                const bool begins_inside = range.start() != spot.leaf.start;
                if (!split_ram(spot.leaf, begins_inside ? range.start() : range.end()))
                    return fail(ErrorCode::no_memory, "no memory to split a huge page",
                                {"leaf", spot.leaf.start.value()});
                ++zapped_.split;
            }
        }
        const bool whole = range.size() == ByteCount(bit(pmd_lg2));
        remove(range, whole ? Tables::remove : Tables::keep);
        return {};
    }

    /// RAM stays one block, which is freed as a whole; each of its leaves now has a reference.
    bool split_ram(const LeafView& leaf, VirtualAddress at) {
        const auto done = core_.edit(
            Change::split, [&](auto& edit) { return edit.split(at, ByteCount(bit(frame_lg2))); });
        if (done && core_.memory.behind(leaf.physical) == Behind::ram)
            core_.memory.hold(leaf.physical,
                              static_cast<std::uint32_t>(bit(leaf.size_lg2 - frame_lg2)) - 1);
        return done.has_value();
    }

    /// Removes all leaves of `range`, which lies in the locked block and cuts none. In batches:
    /// clears them, invalidates, and only then drops their memory.
    void remove(VirtualRange range, Tables tables) {
        for (VirtualAddress from = range.start();;) {
            Batch batch(core_.memory);
            const auto walked = core_.tables.reader().walk(
                from, ByteCount(range.last().value() - from.value() + 1), batch);
            MOAT_CHECK(walked.has_value(), "a range of a VMA can be walked");
            if (batch.count != 0)
                remove(batch);
            if (*walked == WalkEnd::complete || batch.last >= range.last())
                break;
            from = VirtualAddress(batch.last.value() + 1);
        }
        if (tables == Tables::remove)
            core_.edit(Change::tables,
                       [&](auto& edit) { unmap(edit, range, CoveredTables::remove); });
    }

    void remove(const Batch& batch) {
        core_.edit(Change::unmapped, [&](auto& edit) {
            if (batch.wants_dirty)
                for (unsigned i = 0; i != batch.count; ++i)
                    unmap_dirty(edit, batch.leaves[i]);
            else
                unmap(edit, VirtualRange::inclusive(batch.leaves[0].start, batch.last),
                      CoveredTables::keep);
        });
        drop(batch);
        zapped_.leaves += batch.count;
        zapped_.bytes += batch.bytes;
    }

    void drop(const Batch& batch) {
        for (unsigned i = 0; i != batch.count; ++i)
            if (!core_.memory.is_zero(batch.leaves[i].physical))
                core_.memory.drop(batch.leaves[i].physical);
    }

    template <class Edit>
    void unmap(Edit& edit, VirtualRange range, CoveredTables tables) {
        const auto unmapped = edit.unmap(range.start(), range.size(), {.tables = tables});
        MOAT_CHECK(unmapped.has_value(), "a range that cuts no leaf can be unmapped");
    }

    /// Keeps in its frame the dirty flag that hardware may have set until the last moment.
    template <class Edit>
    void unmap_dirty(Edit& edit, const Removed& leaf) {
        const auto unmapped =
            edit.unmap(leaf.start, ByteCount(bit(leaf.size_lg2)),
                       {.tables = CoveredTables::keep, .flags = FinalFlags::collect});
        MOAT_CHECK(unmapped.has_value(), "a leaf that is there can go");
        if (has(unmapped->flags, Attributes::dirty))
            core_.memory.frame(leaf.physical)
                ->flags.fetch_or(Frame<Sync>::dirty, std::memory_order_relaxed);
    }

    Core& core_;
    Zapped zapped_;
    VirtualAddress reached_;
    VirtualAddress last_;
    bool finished_ = false;
};

} // namespace moat::mm
