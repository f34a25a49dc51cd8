// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FaultHandler: one demand fault: find the VMA, install the largest leaf that fits, under the lock
// of its block. AddressSpace::fault and with_leaf call it; address_space.hpp has the protocol.
#pragma once

#include "moat/mm/detail/core.hpp"

#include <cstdint>
#include <optional>

namespace moat::mm {

template <class Core, class Use>
class FaultHandler {
  public:
    using Sync = typename Core::Sync;
    using Attached = typename Core::Attached;
    using Lock = typename Core::Lock;

    /// Calls `use(const LeafView&)` with the leaf, under its block's lock.
    FaultHandler(Core& core, VirtualAddress address, Access access, Use& use)
        : core_(core), address_(address), access_(access), use_(use) {}

    Result<Fault> run() {
        for (unsigned attempt = 0; attempt != core_.options.retries; ++attempt)
            if (const Answer answer = look_up())
                return *answer;
        const Lock lock(core_.vmas_mutex);
        const Answer answer = look_up();
        MOAT_CHECK(answer.has_value(), "no VMA is replaced while the lock of all VMAs is held");
        return *answer;
    }

  private:
    /// Empty if another thread replaced the VMA.
    using Answer = std::optional<Result<Fault>>;

    /// Result of an attempt at one size; `done` sets `answer_`.
    enum class Attempt : std::uint8_t {
        done,
        stale,    ///< the VMA is not attached any more
        smaller,  ///< no leaf of this size fits here
        populate, ///< the table of level 1 is missing, and adding it needs the PUD's lock
    };

    [[nodiscard]] static Attributes wanted(Access access) {
        return access == Access::write     ? Attributes::write
               : access == Access::execute ? Attributes::execute
                                           : Attributes::read;
    }

    Answer look_up() {
        const typename Sync::ReadSection section;
        Attached* const vma = core_.vmas.view().find(address_);
        if (vma == nullptr)
            return fail(ErrorCode::not_found, "nothing is mapped there",
                        {"address", address_.value()});
        if (!has(vma->mapping.permissions, wanted(access_)))
            return fail(ErrorCode::refused, "the mapping does not permit the access",
                        {"address", address_.value()},
                        {"permissions", static_cast<std::uint32_t>(vma->mapping.permissions)});
        for (const unsigned lg2 : {pud_lg2, pmd_lg2, frame_lg2})
            if (fits(*vma, lg2))
                switch (try_size(*vma, lg2)) {
                case Attempt::done:
                    return answer_;
                case Attempt::stale:
                    return std::nullopt;
                case Attempt::smaller:
                case Attempt::populate:
                    break;
                }
        return fail(ErrorCode::no_memory, "no page of the mapping's size is free",
                    {"address", address_.value()});
    }

    [[nodiscard]] VirtualAddress start_of(unsigned lg2) const {
        return VirtualAddress(align_down(address_.value(), lg2));
    }

    [[nodiscard]] bool fits(const Vma<Sync>& vma, unsigned lg2) const {
        const VirtualAddress start = start_of(lg2);
        if (lg2 > vma.mapping.largest_leaf_lg2 || !vma.range.contains(start) ||
            vma.range.last().value() - start.value() < low_bits(lg2))
            return false;
        switch (vma.mapping.kind) {
        case VmaKind::anonymous:
            return lg2 <= pmd_lg2;
        case VmaKind::huge:
            return lg2 == vma.mapping.largest_leaf_lg2;
        case VmaKind::shared:
            return lg2 == frame_lg2;
        case VmaKind::device:
            return is_aligned(vma.physical_of(start).value(), lg2);
        }
        return false;
    }

    Attempt try_size(Attached& vma, unsigned lg2) {
        if (lg2 == pud_lg2) {
            const Lock lock(core_.pud_locks.of(address_.value()));
            return try_locked(vma, lg2, true);
        }
        {
            const Lock lock(core_.pmd_locks.of(address_.value()));
            const Attempt attempt = try_locked(vma, lg2, false);
            if (attempt != Attempt::populate)
                return attempt;
        }
        const Lock pud_lock(core_.pud_locks.of(address_.value()));
        const Lock lock(core_.pmd_locks.of(address_.value()));
        return try_locked(vma, lg2, true);
    }

    /// Under the lock of the block; `holds_pud`: also under the PUD's.
    Attempt try_locked(Attached& vma, unsigned lg2, bool holds_pud) {
        if (!vma.attached())
            return Attempt::stale;
        if (vma.mapping.kind == VmaKind::device && vma.mapping.region->revoked()) {
            answer_.emplace(fail(ErrorCode::io, "the device's memory is revoked",
                                 {"address", address_.value()}));
            return Attempt::done;
        }
        // Only a look under the lock counts: tables of level 0 come and go.
        const Spot spot = core_.look(address_);
        const unsigned level = (lg2 - frame_lg2) / 9;
        if (spot.is_leaf)
            return found(vma, spot, lg2);
        if (spot.level < level)
            return Attempt::smaller;
        if (spot.level >= 2 && !holds_pud)
            return Attempt::populate;
        return install(vma, lg2, FaultOutcome::installed);
    }

    /// Uses the leaf that is there, or makes it permit the access.
    Attempt found(Attached& vma, const Spot& spot, unsigned lg2) {
        if (lg2 == pud_lg2 && spot.level < 2)
            return Attempt::smaller;
        MOAT_CHECK(lg2 == pud_lg2 || spot.level < 2,
                   "a leaf lies in one VMA, so where it is, it fits");
        if (has(spot.leaf.attributes, wanted(access_)))
            return done(FaultOutcome::present, spot.leaf);
        const VirtualRange range = spot.leaf.range();
        if (core_.memory.behind(spot.leaf.physical) == Behind::zero) {
            const auto unmapped = core_.edit(Change::replaced, [&](auto& edit) {
                return edit.unmap(range.start(), range.size());
            });
            MOAT_CHECK(unmapped.has_value(), "an existing leaf can be unmapped");
            return install(vma, fits(vma, spot.leaf.size_lg2) ? spot.leaf.size_lg2 : lg2,
                           FaultOutcome::upgraded);
        }
        const auto changed = core_.edit(Change::replaced, [&](auto& edit) {
            return edit.protect(range.start(), range.size(), core_.leaf_attributes(vma));
        });
        MOAT_CHECK(changed.has_value(), "a leaf as a whole can be changed");
        return done(FaultOutcome::upgraded, core_.look(address_).leaf);
    }

    /// There is no leaf at the address; the tables above it exist or may be added.
    Attempt install(Attached& vma, unsigned lg2, FaultOutcome outcome) {
        LeafView leaf{.start = start_of(lg2),
                      .physical = {},
                      .size_lg2 = lg2,
                      .attributes = core_.leaf_attributes(vma) | Attributes::accessed};
        const Result<PhysicalAddress> physical = memory_for(vma, leaf);
        if (!physical) {
            if (lg2 != frame_lg2 && vma.mapping.kind == VmaKind::anonymous)
                return Attempt::smaller;
            answer_.emplace(std::unexpected(physical.error()));
            return Attempt::done;
        }
        leaf.physical = *physical;
        const Result<void> mapped = core_.edit(Change::tables, [&](auto& edit) {
            return edit.map(leaf.start, leaf.range().size(), leaf.physical, leaf.attributes,
                            {.largest_leaf_lg2 = lg2});
        });
        if (!mapped) {
            MOAT_CHECK(mapped.error().code() == ErrorCode::no_memory,
                       "a leaf that fits into a hole can be mapped");
            core_.memory.drop(leaf.physical);
            answer_.emplace(std::unexpected(mapped.error()));
            return Attempt::done;
        }
        return done(outcome, leaf);
    }

    /// Returns memory to map as `leaf`, with a reference for it, and adjusts the leaf's attributes
    /// (dirty, or read-only for the zero page).
    Result<PhysicalAddress> memory_for(Attached& vma, LeafView& leaf) {
        using FrameType = Frame<Sync>;
        auto& memory = core_.memory;
        const std::uint64_t page =
            (leaf.start.value() - vma.range.start().value()) >> leaf.size_lg2;
        const NodePolicy& nodes = vma.mapping.nodes;
        const unsigned home = core_.options.home_node;
        if (access_ == Access::write)
            leaf.attributes |= Attributes::dirty;
        if (vma.mapping.kind == VmaKind::device) {
            const PhysicalAddress physical = vma.physical_of(leaf.start);
            memory.hold(physical);
            return physical;
        }
        if (vma.mapping.kind == VmaKind::shared)
            return vma.mapping.shared->hold_frame(memory, vma.offset_of(leaf.start) >> frame_lg2,
                                                  nodes, home);
        if (vma.mapping.kind == VmaKind::anonymous && access_ != Access::write &&
            core_.options.zero_page == SpaceOptions::ZeroPage::share)
            if (const auto zero = memory.zero_page()) {
                leaf.attributes = leaf.attributes - Attributes::write;
                return *zero;
            }
        const auto fresh = memory.take(leaf.size_lg2 - frame_lg2, nodes, page, home);
        if (fresh)
            memory.frame(*fresh)->flags.fetch_or(FrameType::anonymous, std::memory_order_relaxed);
        return fresh;
    }

    Attempt done(FaultOutcome outcome, const LeafView& leaf) {
        use_(leaf);
        answer_.emplace(Fault{outcome, leaf});
        return Attempt::done;
    }

    Core& core_;
    const VirtualAddress address_;
    const Access access_;
    Use& use_;
    Answer answer_;
};

} // namespace moat::mm
