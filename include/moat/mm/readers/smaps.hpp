// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// smaps: how much memory of each kind a range of an address space maps, in bytes: the totals of
// Linux's /proc/PID/smaps_rollup, and mapped device memory, which that file omits.
#pragma once

#include "moat/mm/walker.hpp"

#include <cstdint>

namespace moat::mm {

/// Bytes.
struct MemoryTotals {
    std::uint64_t size = 0;           ///< of the VMAs
    std::uint64_t resident = 0;       ///< with a frame, the zero page and BARs aside
    std::uint64_t anonymous = 0;      ///< of those: RAM of the mapping's own
    std::uint64_t shared = 0;         ///< of those: also mapped by others, or a device's
    std::uint64_t dirty = 0;          ///< of those: written to
    std::uint64_t referenced = 0;     ///< of those: used since accessed was cleared
    std::uint64_t anonymous_huge = 0; ///< of anonymous: in transparent leaves of 2 MiB
    std::uint64_t explicit_huge = 0;  ///< of anonymous: in explicit huge pages
    std::uint64_t zero = 0;           ///< that map the huge zero page
    std::uint64_t device = 0;         ///< that map a BAR
};

namespace detail {

template <class Space>
class SmapsVisitor {
  public:
    using Types = typename Space::Types;
    using FrameType = Frame<typename Space::Sync>;

    explicit SmapsVisitor(typename Space::Memory& memory) : memory_(memory) {}

    void before(const Vma<typename Space::Sync>& vma) {
        explicit_ = vma.mapping.kind == VmaKind::huge;
    }

    template <unsigned L>
    void leaf(VirtualRange part, Leaf<Types, L> found) {
        const std::uint64_t bytes = part.size().value();
        const PhysicalAddress physical = found.physical();
        const FrameType* const frame = memory_.frame(physical);
        if (frame == nullptr) {
            totals.device += bytes;
            return;
        }
        if (memory_.is_zero(physical)) {
            totals.zero += bytes;
            return;
        }
        const unsigned flags = frame->flags.load(std::memory_order_relaxed);
        const bool anonymous = (flags & FrameType::anonymous) != 0;
        totals.resident += bytes;
        (anonymous ? totals.anonymous : totals.shared) += bytes;
        if (explicit_)
            totals.explicit_huge += bytes;
        else if (L != 0 && anonymous)
            totals.anonymous_huge += bytes;
        if ((flags & FrameType::dirty) != 0 || has(found.attributes(), Attributes::dirty))
            totals.dirty += bytes;
        if (has(found.attributes(), Attributes::accessed))
            totals.referenced += bytes;
    }

    MemoryTotals totals;

  private:
    typename Space::Memory& memory_;
    bool explicit_ = false;
};

} // namespace detail

/// The totals of the range. No lock and no effect. Errors: empty, out_of_range, overflow.
template <class Space>
[[nodiscard]] Result<MemoryTotals> memory_totals(const Space& space, VirtualRange range) {
    detail::SmapsVisitor<Space> visitor(space.memory());
    const Result<WalkEnd> walked = walk(space, range, visitor);
    if (!walked)
        return std::unexpected(walked.error());
    for (VirtualAddress at = range.start();;) {
        const auto vma = space.find_from(at);
        if (!vma || vma->range.start() > range.last())
            return visitor.totals;
        visitor.totals.size += vma->range.intersection(range).size().value();
        if (vma->range.last() >= range.last())
            return visitor.totals;
        at = vma->range.end();
    }
}

} // namespace moat::mm
