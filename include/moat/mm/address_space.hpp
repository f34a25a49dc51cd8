// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AddressSpace: VMAs, and the page tables that demand faults fill for them. walker.hpp walks them,
// readers/ reports on them; PhysicalMemory owns the memory.
//
// The protocol (and docs/lock_order.md)
//
// Look-ups find VMAs without a lock (vma_tree.hpp). A VMA never changes: unmap, protect, split and
// merge publish a new tree, then detach the VMAs that left it, then visit their blocks. The
// locks, in the order in which code takes them:
//
//     revokes_mutex   notification of a revocation, and the list of notifiers
//     vmas_mutex      changes of the tree of VMAs
//     pud_locks       one entry of level 2: adding or removing a leaf of 1 GiB, adding a table
//     pmd_locks       one entry of level 1 and the table below it: leaves of 2 MiB and 4 KiB
//
// A fault or zap holds one block's lock, and shares no word with those of other blocks. It tests
// under that lock, and not before, whether its VMA is attached. So there are two cases. If the
// fault took the lock before the unmap reached this block, the unmap finds the leaf that it
// installed. Otherwise the fault sees the VMA detached, and looks it up again. After `retries` such
// rounds it takes vmas_mutex, under which VMAs stay.
//
// Why level 2 needs no second look, and level 1 does: in an entry of level 2 TABLE is absorbing as
// long as a VMA touches its span. An unmap frees a table of level 1 only when its whole span lies
// between VMAs, and nothing folds live leaves. So code that saw a table there may continue under
// another lock. A zap of 2 MiB frees the table of level 0, and a leaf of 2 MiB may replace it: an
// observation of an entry of level 1 holds only under its lock, so code repeats it there.
// Readers take no lock at any level: their read section keeps the tables that they visit.
//
// Invalidation precedes reuse: the edit clears entries, then runs notifiers under the lock of the
// block, then drops frames; tables wait for a grace period as well.
#pragma once

#include "moat/mm/detail/core.hpp"
#include "moat/mm/detail/fault.hpp"
#include "moat/mm/detail/flags.hpp"
#include "moat/mm/detail/vma_change.hpp"
#include "moat/mm/detail/zap.hpp"

#include <cstdint>
#include <optional>
#include <utility>

namespace moat::mm {

/// Thread-safe. The memory, regions, shared RAM and names that mappings refer to must outlive it.
template <PageTableFormat F, SyncPolicy S, class M>
class AddressSpace {
  public:
    using Format = F;
    using Sync = S;
    using Memory = M;
    using Core = SpaceCore<F, S, M>;
    using Types = typename Core::Types;
    using Tables = typename Core::Tables;
    using Attached = typename Core::Attached;
    using Region = DeviceRegion<S>;

    /// `tables` is an empty tree over `memory`, as Tables::create makes it.
    AddressSpace(M& memory, Tables&& tables, const SpaceOptions& options = {})
        : core_(memory, std::move(tables), options) {}

    /// Unmaps all. No thread may use the space any more.
    ~AddressSpace() {
        for (VirtualAddress at(0);;) {
            std::optional<VirtualRange> range;
            {
                const typename S::ReadSection section;
                const Attached* const vma = core_.vmas.view().at_or_above(at);
                if (vma == nullptr)
                    return;
                range = vma->range;
            }
            // Frees the frames. The tree itself goes as a whole, which needs no memory.
            release(*range);
            if (range->last().value() == ~std::uint64_t{0})
                return;
            at = range->end();
        }
    }

    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;

    /// Adds a VMA without leaves, and merges it with equal neighbours. Errors: empty,
    /// unaligned (to the pages of its kind), mismatch (of kind and fields), out_of_range (of the
    /// format, region or shared RAM), overflow, overlap, unsupported permissions, no_memory;
    /// an error changes nothing.
    Result<void> map(VirtualRange range, const Mapping<S>& mapping) {
        const Lock lock(core_.vmas_mutex);
        return VmaChange<Core>(core_).map({range, mapping});
    }

    /// Unmaps the range; holes are no error. It cuts VMAs at the ends, and removes a device's leaf
    /// that extends beyond them, which later accesses fault in again. Errors: empty, unaligned
    /// (also if it would cut an explicit huge page), out_of_range, no_memory (to cut). After an
    /// error everything is still mapped, though leaves and VMAs may have been cut.
    Result<Zapped> unmap(VirtualRange range) {
        const Lock lock(core_.vmas_mutex);
        return VmaChange<Core>(core_).unmap(range);
    }

    /// Changes the permissions of the range, for its leaves and for later faults. Errors: as
    /// unmap, not_found (a hole), unsupported (also no permission at all).
    Result<void> protect(VirtualRange range, Attributes permissions) {
        const Lock lock(core_.vmas_mutex);
        return VmaChange<Core>(core_).protect(range, permissions);
    }

    /// Handles a page fault. Returns the leaf as it was under the block's lock, so callers need no
    /// second look (a zap may remove it right after). Errors: not_found (no mapping),
    /// refused (permissions), io (revoked), no_memory.
    Result<Fault> fault(VirtualAddress address, Access access) {
        auto nothing = [](const LeafView&) {};
        return with_leaf(address, access, nothing);
    }

    /// As fault(), and calls `use(const LeafView&)` under the lock of the leaf's block: meanwhile
    /// no zap removes the leaf, and nothing reuses its frame. To pin RAM, `use` calls
    /// `memory().hold(leaf.physical)`. To map the leaf elsewhere, it does so here and undoes it in
    /// Notifier::invalidated, which runs under the same lock. `use` obeys the rules of a notifier.
    template <class Use>
    Result<Fault> with_leaf(VirtualAddress address, Access access, Use&& use) {
        return FaultHandler<Core, std::remove_reference_t<Use>>(core_, address, access, use).run();
    }

    /// Faults in every page of the range. Errors: empty; as fault(), with earlier pages faulted in.
    Result<void> populate(VirtualRange range, Access access) {
        if (range.empty())
            return fail(ErrorCode::empty, "the range has no length",
                        {"start", range.start().value()});
        for (VirtualAddress at = range.start();;) {
            MOAT_LET(const Fault fault, this->fault(at, access));
            const VirtualAddress last = fault.leaf.range().last();
            if (last >= range.last())
                return {};
            at = VirtualAddress(last.value() + 1);
        }
    }

    /// Removes the leaves of the range; its VMAs stay, and accesses fault again. At the ends it
    /// removes a device's leaf as a whole and splits RAM. Errors: empty, unaligned (also an
    /// explicit huge page in part), out_of_range, no_memory (for splitting; leaves before it are
    /// gone).
    Result<Zapped> zap(VirtualRange range) {
        MOAT_TRY(Core::check(range));
        return zap_where(range, [](const Attached&) { return true; });
    }

    /// Splits the leaf of 2^size_lg2 bytes that covers `address`, or unmaps it, as `device` says.
    LeafChange split_leaf(VirtualAddress address, unsigned size_lg2,
                          DeviceLeaf device = DeviceLeaf::keep) {
        for (unsigned attempt = 0;; ++attempt) {
            const typename S::ReadSection section;
            const Attached* const vma = core_.vmas.view().find(address);
            if (vma == nullptr)
                return LeafChange::gone;
            const LeafChange change =
                Zapper<Core>(core_).split_leaf(*vma, address, size_lg2, device);
            // Replacing a VMA removes no leaf; unmapping one does.
            if (change != LeafChange::gone || vma->attached() || attempt == core_.options.retries)
                return change;
        }
    }

    /// Ends all access to the region: removes its leaves, and fails faults with io until restore().
    /// When it returns, every notifier has run for every leaf, and for the revocation. For a region
    /// that several spaces map, call it on each. Not from inside a read section.
    Zapped revoke(Region& region) {
        mark_revoked(region);
        const auto space =
            VirtualRange::inclusive(VirtualAddress(0), VirtualAddress(~std::uint64_t{0} - 1));
        const auto zapped =
            zap_where(space, [&](const Attached& vma) { return vma.mapping.region == &region; });
        MOAT_CHECK(zapped.has_value(), "a device's leaf goes as a whole, without memory");
        const Lock lock(core_.revokes_mutex);
        core_.notifiers.notify_revoked(region);
        return *zapped;
    }

    void restore(Region& region) { region.set_revoked(false); }

    /// Clears `which` of accessed and dirty in every leaf that the range touches, and calls
    /// `visit(const LeafView&)` for each leaf that had one, with those that it had. A leaf that
    /// extends beyond the range counts as a whole. `visit` runs under the lock of a block and obeys
    /// the rules of a notifier. Frames keep their own dirty flag. Errors: empty, unaligned,
    /// out_of_range, unsupported (the format has no such bits).
    template <class Visit>
    Result<void> clear_accessed_dirty(VirtualRange range, Attributes which, Visit&& visit) {
        MOAT_TRY(Core::check(range));
        const Lock lock(core_.vmas_mutex);
        return FlagClearer<Core, std::remove_reference_t<Visit>>(core_, which, visit).run(range);
    }

    /// The VMA of `address` at this moment.
    [[nodiscard]] std::optional<Vma<S>> find(VirtualAddress address) const {
        const auto found = find_from(address);
        return found && found->range.contains(address) ? found : std::nullopt;
    }

    /// The VMA of `address`, or the next one above.
    [[nodiscard]] std::optional<Vma<S>> find_from(VirtualAddress address) const {
        const typename S::ReadSection section;
        const Attached* const vma = core_.vmas.view().at_or_above(address);
        return vma == nullptr ? std::nullopt : std::optional<Vma<S>>(*vma);
    }

    /// Returns the leaf of `address` at this moment, without a fault, a lock or any effect; nothing
    /// for an address that the format cannot translate.
    [[nodiscard]] std::optional<LeafView> look_up(VirtualAddress address) const {
        if (!InputSpace<F>::of(address.value(), F::most_levels).contains(address.value(), 1))
            return std::nullopt;
        const Spot spot = core_.look(address);
        return spot.is_leaf ? std::optional<LeafView>(spot.leaf) : std::nullopt;
    }

    /// Calls `visit(const LeafView&)` for each leaf that the range touches, in order. Takes no
    /// lock, has no effect, and reads each entry once. Errors: of the range.
    template <class Visit>
    Result<void> look_up(VirtualRange range, Visit&& visit) const {
        const auto walked = core_.tables.reader().walk(
            range.start(), range.size(), LeafCaller<std::remove_reference_t<Visit>>{visit});
        return walked ? Result<void>() : std::unexpected(walked.error());
    }

    /// The notifier runs for every later change, until remove_notifier() has returned.
    void add_notifier(Notifier<S>& notifier) {
        const Lock revokes_lock(core_.revokes_mutex);
        const Lock lock(core_.vmas_mutex);
        core_.notifiers.add(notifier);
    }

    /// Not from inside a read section.
    void remove_notifier(Notifier<S>& notifier) {
        {
            const Lock revokes_lock(core_.revokes_mutex);
            const Lock lock(core_.vmas_mutex);
            core_.notifiers.remove(notifier);
        }
        S::synchronize();
    }

    /// For walks of the tables: hardware takes their root, software a Reader.
    [[nodiscard]] const Tables& tables() const { return core_.tables; }

    [[nodiscard]] M& memory() const { return core_.memory; }

    /// For the room's own operations.
    [[nodiscard]] Core& core() { return core_; }

    [[nodiscard]] const Core& core() const { return core_; }

  private:
    using Lock = typename Core::Lock;

    template <class Visit>
    struct LeafCaller {
        Visit& visit;

        template <unsigned L>
        void leaf(VirtualAddress start, const Leaf<Types, L>& found) {
            visit(LeafView{start, found.physical(), found.size_lg2(), found.attributes()});
        }
    };

    /// Later maps of the region publish after this, so their faults see the mark.
    void mark_revoked(Region& region) {
        const Lock lock(core_.vmas_mutex);
        region.set_revoked(true);
    }

    /// Zaps the part of `range` in each VMA that `wanted` accepts.
    template <class Wanted>
    Result<Zapped> zap_where(VirtualRange range, Wanted wanted) {
        Zapper<Core> zapper(core_);
        unsigned stale = 0;
        for (VirtualAddress at = range.start();;) {
            std::optional<Lock> lock;
            if (stale >= core_.options.retries)
                lock.emplace(core_.vmas_mutex);
            const typename S::ReadSection section;
            const Attached* const vma = core_.vmas.view().at_or_above(at);
            if (vma == nullptr || vma->range.start() > range.last())
                return zapper.zapped();
            const auto part = vma->range.intersection(VirtualRange::inclusive(at, range.last()));
            const VirtualAddress last = part.last();
            at = VirtualAddress(last.value() + 1);
            if (wanted(*vma)) {
                if (!is_aligned(part.start().value() | (last.value() + 1), vma->page_lg2()))
                    return fail(ErrorCode::unaligned, "an explicit huge page cannot be cut",
                                {"start", part.start().value()}, {"last", last.value()});
                MOAT_TRY(zapper.run(*vma, part, VmaIs::looked_up));
                if (!zapper.finished()) {
                    ++stale;
                    at = zapper.reached();
                    continue;
                }
            }
            if (last == range.last() || last.value() == ~std::uint64_t{0})
                return zapper.zapped();
        }
    }

    void release(VirtualRange range) {
        const typename S::ReadSection section;
        const Attached* const vma = core_.vmas.view().find(range.start());
        Zapper<Core> zapper(core_);
        MOAT_CHECK(zapper.run(*vma, range, VmaIs::ours).has_value(), "whole VMAs cut no leaf");
    }

    Core core_;
};

} // namespace moat::mm
