// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VmaChange: map, unmap and protect: cut, remove, add and merge VMAs, then update the leaves.
// AddressSpace holds the lock of all VMAs around each; arguments are checked here.
#pragma once

#include "moat/mm/detail/blocks.hpp"
#include "moat/mm/detail/core.hpp"
#include "moat/mm/detail/zap.hpp"

#include <algorithm>
#include <cstdint>

namespace moat::mm {

template <class Core>
class VmaChange {
  public:
    using Sync = typename Core::Sync;
    using F = typename Core::Format;
    using Attached = typename Core::Attached;
    using Update = typename VmaTree<Sync>::Update;
    using Lock = typename Core::Lock;

    explicit VmaChange(Core& core) : core_(core) {}

    Result<void> map(const Vma<Sync>& vma) {
        MOAT_TRY(check(vma));
        const Attached* const next = core_.vmas.view().at_or_above(vma.range.start());
        if (next != nullptr && next->range.overlaps(vma.range))
            return fail(ErrorCode::overlap, "a mapping is there already",
                        {"start", vma.range.start().value()}, {"size", vma.range.size().value()},
                        {"mapped_at", next->range.start().value()});
        Update update(core_.vmas);
        MOAT_TRY(update.insert(vma));
        MOAT_TRY(merge_at(update, vma.range.start()));
        MOAT_TRY(merge_behind(update, vma.range));
        update.publish();
        return {};
    }

    Result<Zapped> unmap(VirtualRange range) {
        MOAT_TRY(Core::check(range));
        MOAT_TRY(cut_ends(range));
        Update update(core_.vmas);
        for (;;) {
            const Attached* const vma = update.view().at_or_above(range.start());
            if (vma == nullptr || vma->range.start() > range.last())
                break;
            MOAT_TRY(update.erase(vma->range.start()));
        }
        // Publishing retires them, but zapping still needs their mappings.
        const typename Sync::ReadSection section;
        const auto before = core_.vmas.view();
        update.publish();
        Zapper<Core> zapper(core_);
        for (const Attached* vma = before.at_or_above(range.start());
             vma != nullptr && vma->range.start() <= range.last(); vma = before.after(*vma)) {
            const Result<void> done = zapper.run(*vma, vma->range, VmaIs::ours);
            MOAT_CHECK(done.has_value(), "leaves at the ends were cut before");
        }
        free_tables(range);
        return zapper.zapped();
    }

    Result<void> protect(VirtualRange range, Attributes permissions) {
        MOAT_TRY(Core::check(range));
        MOAT_TRY(check_covered(range, permissions));
        MOAT_TRY(cut_ends(range));
        Update update(core_.vmas);
        for (VirtualAddress at = range.start();;) {
            const Vma<Sync> old = *update.view().find(at);
            Vma<Sync> fresh = old;
            fresh.mapping.permissions = permissions;
            MOAT_TRY(update.erase(old.range.start()));
            MOAT_TRY(update.insert(fresh));
            MOAT_TRY(merge_at(update, old.range.start()));
            if (old.range.last() == range.last())
                break;
            at = old.range.end();
        }
        MOAT_TRY(merge_behind(update, range));
        update.publish();
        change_leaves(range);
        return {};
    }

  private:
    struct LeafProtector {
        Edit<typename Core::Types>& edit;
        typename Core::Memory& memory;
        Attributes attributes;

        template <unsigned L>
        void leaf(VirtualAddress start, const Leaf<typename Core::Types, L>& found) {
            const bool zero = memory.is_zero(found.physical());
            const auto done = edit.protect(start, found.size(),
                                           zero ? attributes - Attributes::write : attributes);
            MOAT_CHECK(done.has_value(), "a leaf as a whole can be changed");
        }
    };

    /// Permissions that the format can express; none at all is for mappings without access.
    Result<void> check_permissions(const Vma<Sync>& vma) const {
        if (vma.mapping.permissions == Attributes::none ||
            F::representable(core_.leaf_attributes(vma)))
            return {};
        return fail(ErrorCode::unsupported, "the format cannot express these permissions",
                    {"permissions", static_cast<std::uint32_t>(vma.mapping.permissions)});
    }

    Result<void> check(const Vma<Sync>& vma) const {
        const auto& [kind, permissions, largest, region, shared, offset, nodes, name] = vma.mapping;
        if ((kind == VmaKind::device) != (region != nullptr) ||
            (kind == VmaKind::shared) != (shared != nullptr))
            return fail(ErrorCode::mismatch,
                        "a mapping has a region for kind device, shared RAM for kind shared",
                        {"kind", static_cast<std::uint64_t>(kind)}, {"region", region != nullptr},
                        {"shared", shared != nullptr});
        if (kind == VmaKind::huge && largest != pmd_lg2 && largest != pud_lg2)
            return fail(ErrorCode::unsupported, "explicit huge pages have 2 MiB or 1 GiB",
                        {"largest_leaf_lg2", largest});
        MOAT_TRY(Core::check(vma.range));
        MOAT_TRY(check_permissions(vma));
        const std::uint64_t ends = vma.range.start().value() | vma.range.size().value();
        if (!is_aligned(ends, vma.page_lg2()) || !is_aligned(offset.value(), frame_lg2))
            return fail(ErrorCode::unaligned, "a mapping is made of its pages",
                        {"start", vma.range.start().value()}, {"size", vma.range.size().value()},
                        {"page", bit(vma.page_lg2())}, {"offset", offset.value()});
        const std::uint64_t room = kind == VmaKind::device   ? region->range().size().value()
                                   : kind == VmaKind::shared ? shared->pages() << frame_lg2
                                                             : ~std::uint64_t{0};
        if (offset.value() > room || vma.range.size().value() > room - offset.value())
            return fail(ErrorCode::out_of_range, "the mapping exceeds its region",
                        {"offset", offset.value()}, {"size", vma.range.size().value()},
                        {"room", room});
        return {};
    }

    Result<void> check_covered(VirtualRange range, Attributes permissions) const {
        for (VirtualAddress at = range.start();;) {
            const Attached* const vma = core_.vmas.view().find(at);
            if (vma == nullptr)
                return fail(ErrorCode::not_found, "a part of the range is not mapped",
                            {"address", at.value()});
            Vma<Sync> changed = *vma;
            changed.mapping.permissions = permissions;
            if (permissions == Attributes::none)
                return fail(ErrorCode::unsupported,
                            "leaves that permit nothing cannot be expressed", {"at", at.value()},
                            {"permissions", static_cast<std::uint32_t>(permissions)});
            MOAT_TRY(check_permissions(changed));
            if (vma->range.last() >= range.last())
                return {};
            at = vma->range.end();
        }
    }

    /// Makes both ends of `range` ends of VMAs and of leaves. Errors: of cut_at; an earlier cut
    /// stays, which only the list of VMAs shows.
    Result<void> cut_ends(VirtualRange range) {
        MOAT_TRY(cut_at(range.start()));
        const std::uint64_t end = range.last().value() + 1;
        return end == 0 ? Result<void>() : cut_at(VirtualAddress(end));
    }

    /// Makes `at` a boundary of VMAs and of leaves, all under the locks of the block, so that a
    /// leaf never lies in two VMAs. Errors: unaligned (explicit huge pages), no_memory; an error
    /// changes nothing.
    Result<void> cut_at(VirtualAddress at) {
        Update update(core_.vmas);
        const Attached* const vma = update.view().find(at);
        if (vma == nullptr || vma->range.start() == at)
            return {};
        if (!is_aligned(at.value(), vma->page_lg2()))
            return fail(ErrorCode::unaligned, "an explicit huge page cannot be cut",
                        {"at", at.value()}, {"page", bit(vma->page_lg2())});
        const VirtualAddress before(at.value() - 1);
        MOAT_TRY(update.erase(vma->range.start()));
        for (const VirtualRange part : {VirtualRange::inclusive(vma->range.start(), before),
                                        VirtualRange::inclusive(at, vma->range.last())})
            MOAT_TRY(update.insert(vma->of(part)));
        const Lock pud_lock(core_.pud_locks.of(at.value()));
        const Lock pmd_lock(core_.pmd_locks.of(at.value()));
        if (!Zapper<Core>(core_).cut_leaf(*vma, at))
            return fail(ErrorCode::no_memory, "no memory to split a huge page", {"at", at.value()});
        update.publish();
        return {};
    }

    Result<void> merge_behind(Update& update, VirtualRange range) {
        const std::uint64_t end = range.last().value() + 1;
        return end == 0 ? Result<void>() : merge_at(update, VirtualAddress(end));
    }

    /// Merges the VMA that ends at `at` with the one that begins there, if they are equal.
    static Result<void> merge_at(Update& update, VirtualAddress at) {
        const Attached* const below = update.view().last_before(at);
        const Attached* const above = update.view().find(at);
        if (below == nullptr || above == nullptr || !below->merges_with(*above))
            return {};
        const Vma<Sync> merged{below->range.hull(above->range), below->mapping};
        const VirtualAddress first = below->range.start();
        MOAT_TRY(update.erase(first));
        MOAT_TRY(update.erase(at));
        return update.insert(merged);
    }

    /// Gives the leaves of `range` the permissions of their VMAs. A fault with an old VMA either
    /// sees under the block's lock that it is detached, or installed its leaf before this visit.
    void change_leaves(VirtualRange range) {
        const auto view = core_.vmas.view();
        for (const Attached* vma = view.at_or_above(range.start());
             vma != nullptr && vma->range.start() <= range.last(); vma = view.after(*vma))
            for_each_block(core_, vma->range.intersection(range),
                           [&](VirtualRange part) { change_leaves_in_block(*vma, part); });
    }

    /// Under the block's lock; every leaf lies inside `range`. The zero page stays read-only.
    void change_leaves_in_block(const Attached& vma, VirtualRange range) {
        const auto walked = core_.edit(Change::protection, [&](auto& edit) {
            LeafProtector visitor{edit, core_.memory, core_.leaf_attributes(vma)};
            return core_.tables.reader().walk(range.start(), range.size(), visitor);
        });
        MOAT_CHECK(walked.has_value(), "a range of a VMA can be walked");
    }

    /// Frees tables whose whole span lies in the gap around `range`. No other edit runs there: no
    /// VMA is attached, and each block's lock was taken since the last one was detached.
    void free_tables(VirtualRange range) {
        const auto view = core_.vmas.view();
        const Attached* const below = view.last_before(range.start());
        const Attached* const above = view.at_or_above(range.start());
        const auto space = InputSpace<F>::of(range.start().value(), F::most_levels);
        const std::uint64_t space_first = range.start().value() <= low_bits(input_bits<F>() - 1)
                                              ? 0
                                              : ~low_bits(input_bits<F>() - 1);
        const bool same_half = below != nullptr && below->range.start().value() >= space_first;
        std::uint64_t first = same_half ? below->range.last().value() + 1 : space_first;
        std::uint64_t last = space.last;
        if (above != nullptr && above->range.start().value() <= last)
            last = above->range.start().value() - 1;
        // At most the span of the table above: the gap may be most of the space.
        constexpr unsigned reach_lg2 = pud_lg2 + 9;
        first = std::max(align_up(first, pud_lg2), align_down(range.start().value(), reach_lg2));
        last = std::min(last, range.last().value() | low_bits(reach_lg2));
        const std::uint64_t end = align_down(last + 1, pud_lg2);
        if (end - 1 - first > space.last - first || end - 1 < first)
            return;
        const auto done = core_.edit(Change::tables, [&](auto& edit) {
            return edit.unmap(VirtualAddress(first), ByteCount(end - first));
        });
        MOAT_CHECK(done.has_value() && done->leaves == 0, "nothing is mapped in a gap");
    }

    Core& core_;
};

} // namespace moat::mm
