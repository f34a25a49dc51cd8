// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AddressSpace: VMAs, and the page tables that demand faults fill for them. Walks with operations
// are walker.hpp, reports readers/; memory is PhysicalMemory's.
//
// The protocol (and docs/lock_order.md)
//
// VMAs are found without a lock (vma_tree.hpp). A VMA never changes: unmap, protect, split and
// merge publish a new tree, then detach the VMAs that left it, then go through their blocks. The
// locks:
//
//     revokes_mutex   who tells of a revocation, and the list of who hears
//     vmas_mutex      who changes the tree of VMAs
//     pud_locks       one entry of level 2: a leaf of 1 GiB comes or goes, a table comes
//     pmd_locks       one entry of level 1 and the table below it: leaves of 2 MiB and 4 KiB
//
// in this order; a fault or zap holds one block's lock, and shares no word with those of other
// blocks. Under it, and not before, it asks whether its VMA is attached. So there are two cases.
// The fault took the lock before the unmap came to this block: then the unmap finds what it
// installed. Or after: then it sees the VMA detached, and looks it up again. After `retries` such
// rounds it takes vmas_mutex, under which VMAs stay.
//
// Why level 2 needs no second look, and level 1 does. In an entry of level 2 TABLE is absorbing as
// long as a VMA touches its span: unmap frees a table of level 1 only when its whole span lies
// between VMAs, and nothing folds live leaves. So who has seen a table there may go on with another
// lock. A table of level 0 goes whenever a zap covers its 2 MiB, and a leaf of 2 MiB may follow it:
// what was seen of an entry of level 1 holds only under its lock, and is looked at again there.
// Readers take no lock at any level: their read section keeps tables that they may be in.
//
// Invalidation comes before reuse: entries are cleared, then notifiers are told, under the lock of
// the block, then frames are dropped; tables wait for a grace period as well.
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

/// Thread-safe. The memory outlives it, and so do regions, shared RAM and names that mappings show.
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

    /// Unmaps all. Nobody uses the space any more.
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
            // What fails for want of memory for the tree goes with the tree; frames must go now.
            release(*range);
            if (range->last().value() == ~std::uint64_t{0})
                return;
            at = range->end();
        }
    }

    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;

    /// A new VMA, merged with its neighbours where they are alike. No leaf is made. Errors: empty,
    /// unaligned (to the pages of its kind), mismatch (of kind and fields), out_of_range (of the
    /// format, region or shared RAM), overflow, overlap, unsupported permissions, no_memory;
    /// nothing was changed then.
    Result<void> map(VirtualRange range, const Mapping<S>& mapping) {
        const Lock lock(core_.vmas_mutex);
        return VmaChange<Core>(core_).map({range, mapping});
    }

    /// Unmaps what is mapped in the range; holes are no error. VMAs at its ends are cut; a device's
    /// leaf that sticks out goes and is faulted in again. Errors: empty, unaligned (also where an
    /// explicit huge page would be cut), out_of_range, no_memory (to cut); all is mapped still
    /// then, though leaves and VMAs may have been cut.
    Result<Zapped> unmap(VirtualRange range) {
        const Lock lock(core_.vmas_mutex);
        return VmaChange<Core>(core_).unmap(range);
    }

    /// Gives the mappings of the range other permissions, now and for faults to come. Errors: as
    /// unmap, not_found (a hole), unsupported (also no permission at all).
    Result<void> protect(VirtualRange range, Attributes permissions) {
        const Lock lock(core_.vmas_mutex);
        return VmaChange<Core>(core_).protect(range, permissions);
    }

    /// What a page fault does. The answer holds the leaf as it was under the block's lock, so no
    /// second look is needed (it may be zapped right after). Errors: not_found (no mapping),
    /// refused (permissions), io (revoked), no_memory.
    Result<Fault> fault(VirtualAddress address, Access access) {
        auto nothing = [](const LeafView&) {};
        return with_leaf(address, access, nothing);
    }

    /// As fault(), and calls `use(const LeafView&)` before the lock of the leaf's block goes: the
    /// leaf cannot be zapped meanwhile, nor its frame reused. To pin RAM, use calls
    /// `memory().hold(leaf.physical)`; to map the leaf elsewhere, it does so here and undoes it in
    /// Notifier::invalidated, which comes under the same lock. `use` obeys the rules of a notifier.
    template <class Use>
    Result<Fault> with_leaf(VirtualAddress address, Access access, Use&& use) {
        return FaultHandler<Core, std::remove_reference_t<Use>>(core_, address, access, use).run();
    }

    /// Faults in every page of the range. Errors: empty; as fault(); what came before stays.
    Result<void> populate(VirtualRange range, Access access) {
        if (range.empty())
            return fail(ErrorCode::empty, "the range has no length",
                        {"start", range.start().value()});
        for (VirtualAddress at = range.start();;) {
            const Result<Fault> fault = this->fault(at, access);
            if (!fault)
                return std::unexpected(fault.error());
            const VirtualAddress last = fault->leaf.range().last();
            if (last >= range.last())
                return {};
            at = VirtualAddress(last.value() + 1);
        }
    }

    /// Takes the leaves of the range away; its VMAs stay, and accesses fault again. A device's leaf
    /// that sticks out goes as a whole, RAM is split. Errors: empty, unaligned (also an explicit
    /// huge page in part), out_of_range, no_memory (for splitting; leaves before it are gone).
    Result<Zapped> zap(VirtualRange range) {
        if (auto good = check_range<F>(range.start().value(), range.size().value(), frame_lg2,
                                       F::most_levels);
            !good)
            return std::unexpected(good.error());
        return zap_where(range, [](const Attached&) { return true; });
    }

    /// Takes the leaf of 2^size_lg2 bytes that covers `address` apart, if it is one that can be.
    LeafChange split_leaf(VirtualAddress address, unsigned size_lg2,
                          DeviceLeaf device = DeviceLeaf::keep) {
        for (unsigned attempt = 0;; ++attempt) {
            const typename S::ReadSection section;
            const Attached* const vma = core_.vmas.view().find(address);
            if (vma == nullptr)
                return LeafChange::gone;
            const LeafChange change =
                Zapper<Core>(core_).split_leaf(*vma, address, size_lg2, device);
            // A VMA that was replaced took no leaf with it, but one that was unmapped did.
            if (change != LeafChange::gone || vma->attached() || attempt == core_.options.retries)
                return change;
        }
    }

    /// Ends all access to the region: leaves of it go, and until restore() faults fail with io.
    /// When it returns, every notifier has heard of every leaf, and of the revocation. A region
    /// that several spaces show is revoked in each. Not from inside a read section.
    Zapped revoke(Region& region) {
        mark_revoked(region);
        const auto space =
            VirtualRange::inclusive(VirtualAddress(0), VirtualAddress(~std::uint64_t{0} - 1));
        const auto zapped =
            zap_where(space, [&](const Attached& vma) { return vma.mapping.region == &region; });
        MOAT_CHECK(zapped.has_value(), "a device's leaf goes as a whole, without memory");
        const Lock lock(core_.revokes_mutex);
        core_.notifiers.tell_revoked(region);
        return *zapped;
    }

    void restore(Region& region) { region.set_revoked(false); }

    /// Clears `which` of accessed and dirty in every leaf that the range touches, and calls
    /// `visit(const LeafView&)` for each that had one, with those that it had. A leaf that sticks
    /// out is cleared and told of as a whole. Under the lock of a block: visit obeys the rules of a
    /// notifier. What was dirty stays so in the frame's own flags. Errors: empty, unaligned,
    /// out_of_range, unsupported (the format has no such bits).
    template <class Visit>
    Result<void> clear_accessed_dirty(VirtualRange range, Attributes which, Visit&& visit) {
        if (auto good = check_range<F>(range.start().value(), range.size().value(), frame_lg2,
                                       F::most_levels);
            !good)
            return good;
        const Lock lock(core_.vmas_mutex);
        return FlagClearer<Core, std::remove_reference_t<Visit>>(core_, which, visit).run(range);
    }

    /// The VMA of `address` at this moment.
    [[nodiscard]] std::optional<Vma<S>> find(VirtualAddress address) const {
        const typename S::ReadSection section;
        const Attached* const vma = core_.vmas.view().find(address);
        return vma == nullptr ? std::nullopt : std::optional<Vma<S>>(*vma);
    }

    /// The VMA of `address`, or the next one above.
    [[nodiscard]] std::optional<Vma<S>> find_from(VirtualAddress address) const {
        const typename S::ReadSection section;
        const Attached* const vma = core_.vmas.view().at_or_above(address);
        return vma == nullptr ? std::nullopt : std::optional<Vma<S>>(*vma);
    }

    /// What `address` maps to at this moment, without a fault, a lock or any effect; nothing for an
    /// address that the format cannot translate.
    [[nodiscard]] std::optional<LeafView> look_up(VirtualAddress address) const {
        if (!InputSpace<F>::of(address.value(), F::most_levels).contains(address.value(), 1))
            return std::nullopt;
        const Spot spot = core_.look(address);
        return spot.is_leaf ? std::optional<LeafView>(spot.leaf) : std::nullopt;
    }

    /// Calls `visit(const LeafView&)` for each leaf that the range touches, in order; holes are
    /// passed over. No lock and no effect; each entry is looked at once. Errors: of the range.
    template <class Visit>
    Result<void> look_up(VirtualRange range, Visit&& visit) const {
        const auto walked = core_.tables.reader().walk(
            range.start(), range.size(), LeafCaller<std::remove_reference_t<Visit>>{visit});
        return walked ? Result<void>() : std::unexpected(walked.error());
    }

    /// The notifier hears of every change that comes after, until remove_notifier() returned.
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

    /// For whoever walks the tables: hardware takes their root, readers a Reader.
    [[nodiscard]] const Tables& tables() const { return core_.tables; }

    [[nodiscard]] M& memory() const { return core_.memory; }

    /// What the room's own operations build on.
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

    /// Who maps the region from now on publishes after us, and its faults see the mark.
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
            const VirtualAddress first = vma->range.start() > at ? vma->range.start() : at;
            const VirtualAddress last =
                vma->range.last() < range.last() ? vma->range.last() : range.last();
            at = VirtualAddress(last.value() + 1);
            if (wanted(*vma)) {
                if (!is_aligned(first.value() | (last.value() + 1), vma->page_lg2()))
                    return fail(ErrorCode::unaligned, "an explicit huge page is not cut",
                                {"start", first.value()}, {"last", last.value()});
                if (auto done =
                        zapper.run(*vma, VirtualRange::inclusive(first, last), VmaIs::looked_up);
                    !done)
                    return std::unexpected(done.error());
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
