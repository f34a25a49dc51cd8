// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What Linux's /proc/PID shows of an address space: numa_maps, a line for each VMA; and the totals
// of smaps_rollup, with mapped device memory, which that file omits. They read each frame's
// metadata and change nothing. Source: Linux, Documentation/filesystems/proc.rst 1.1, and numa(7).
#pragma once

#include "moat/mm/walker.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

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
    MOAT_TRY(walk(space, range, visitor));
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

/// Counts of one VMA, in pages of 4 KiB, or in its explicit huge pages.
struct NumaCounts {
    std::uint64_t pages = 0;
    std::uint64_t anonymous = 0;
    std::uint64_t dirty = 0;
    std::uint64_t most_mapped = 0; ///< references of the page that has the most
    std::array<std::uint64_t, most_nodes> by_node{};
};

namespace detail {

/// Builds a line in its own buffer, without allocating.
class Line {
  public:
    void text(std::string_view part) {
        for (const char c : part)
            if (used_ != bytes_.size())
                bytes_[used_++] = c;
    }

    void decimal(std::uint64_t value) { number(value, 10, 1); }

    /// At least `digits` digits, as "%08lx" is.
    void hexadecimal(std::uint64_t value, unsigned digits) { number(value, 16, digits); }

    /// " name=value"
    void field(std::string_view name, std::uint64_t value) {
        text(" ");
        text(name);
        text("=");
        decimal(value);
    }

    [[nodiscard]] std::string_view view() const { return {bytes_.data(), used_}; }

  private:
    void number(std::uint64_t value, unsigned base, unsigned digits) {
        std::array<char, 20> reversed{};
        std::size_t count = 0;
        for (; value != 0 || count < digits; value /= base)
            reversed[count++] = "0123456789abcdef"[value % base];
        while (count != 0)
            text({&reversed[--count], 1});
    }

    std::array<char, 1024> bytes_{};
    std::size_t used_ = 0;
};

/// Visits the leaves of one VMA. Memory without metadata, a BAR's, and the zero page do not count.
template <class Space>
class NumaVisitor {
  public:
    using Types = typename Space::Types;
    using FrameType = Frame<typename Space::Sync>;

    explicit NumaVisitor(typename Space::Memory& memory, const Vma<typename Space::Sync>& vma)
        : memory_(memory), page_lg2_(vma.page_lg2()) {}

    template <unsigned L>
    [[gnu::always_inline]] void leaf(VirtualRange part, Leaf<Types, L> found) {
        const PhysicalAddress physical = found.physical();
        const FrameType* const frame = memory_.frame(physical);
        if (frame == nullptr || memory_.is_zero(physical))
            return;
        const std::uint64_t pages = L == 0 ? 1 : part.size().value() >> page_lg2_;
        const unsigned flags = frame->flags.load(std::memory_order_relaxed);
        if ((flags & FrameType::anonymous) == 0) [[unlikely]]
            note_mapped(physical);
        const bool dirty =
            (flags & FrameType::dirty) != 0 || has(found.attributes(), Attributes::dirty);
        // Neighbours are mostly of one kind: one sum instead of four.
        const unsigned alike =
            frame->node << 2 | (flags & FrameType::anonymous) | (dirty ? 1U : 0U);
        if (alike != alike_) [[unlikely]] {
            add_run();
            alike_ = alike;
        }
        run_ += pages;
    }

    /// Call it once, at the end.
    [[nodiscard]] const NumaCounts& counts() {
        add_run();
        return counts_;
    }

  private:
    [[gnu::noinline]] void add_run() {
        counts_.pages += run_;
        counts_.by_node[alike_ >> 2] += run_;
        counts_.anonymous += (alike_ & FrameType::anonymous) != 0 ? run_ : 0;
        counts_.dirty += (alike_ & 1) != 0 ? run_ : 0;
        run_ = 0;
    }

    /// Shared RAM's own reference is no mapping.
    [[gnu::noinline]] void note_mapped(PhysicalAddress physical) {
        const FrameType* const first = memory_.counted_frame(physical);
        if (first == nullptr)
            return;
        const std::uint64_t own = memory_.behind(physical) == Behind::ram ? 1 : 0;
        const std::uint64_t mapped = first->references.load(std::memory_order_relaxed) - own;
        counts_.most_mapped = mapped > counts_.most_mapped ? mapped : counts_.most_mapped;
    }

    static_assert(FrameType::anonymous == 2 && most_nodes <= 64);

    NumaCounts counts_;
    std::uint64_t run_ = 0; ///< pages that are not in the counts yet,
    unsigned alike_ = 0;    ///< and of which kind: node, anonymous, dirty
    typename Space::Memory& memory_;
    const unsigned page_lg2_;
};

/// "0-2,5"
inline void write_nodes(Line& line, std::uint32_t nodes) {
    std::string_view separator;
    while (nodes != 0) {
        const auto first = static_cast<unsigned>(std::countr_zero(nodes));
        const auto count = static_cast<unsigned>(std::countr_one(nodes >> first));
        line.text(separator);
        line.decimal(first);
        if (count > 1) {
            line.text("-");
            line.decimal(first + count - 1);
        }
        nodes = static_cast<std::uint32_t>(nodes & ~(low_bits(count) << first));
        separator = ",";
    }
}

inline void write_policy(Line& line, const NodePolicy& policy) {
    constexpr std::array<std::string_view, 4> names = {"default",
                                                       "prefer:", "bind:", "interleave:"};
    line.text(names[static_cast<std::size_t>(policy.mode)]);
    if (policy.mode != NodeMode::standard)
        write_nodes(line, policy.nodes);
}

template <SyncPolicy Sync>
void write_numa_line(Line& line, const Vma<Sync>& vma, const NumaCounts& counts) {
    line.hexadecimal(vma.range.start().value(), 8);
    line.text(" ");
    write_policy(line, vma.mapping.nodes);
    if (vma.mapping.name != nullptr) {
        line.text(" ");
        line.text(vma.mapping.name);
    } else if (vma.mapping.kind == VmaKind::shared) {
        line.text(" file=");
        line.text(vma.mapping.shared->name());
    }
    const bool huge = vma.mapping.kind == VmaKind::huge;
    if (huge)
        line.text(" huge");
    if (counts.pages != 0) {
        if (counts.anonymous != 0)
            line.field("anon", counts.anonymous);
        if (counts.dirty != 0)
            line.field("dirty", counts.dirty);
        if (counts.pages != counts.anonymous && counts.pages != counts.dirty)
            line.field("mapped", counts.pages);
        if (counts.most_mapped > 1)
            line.field("mapmax", counts.most_mapped);
        for (unsigned node = 0; node != most_nodes; ++node)
            if (counts.by_node[node] != 0) {
                line.text(" N");
                line.decimal(node);
                line.text("=");
                line.decimal(counts.by_node[node]);
            }
        line.field("kernelpagesize_kB", bit(vma.page_lg2() - 10));
    }
    line.text("\n");
}

} // namespace detail

/// Calls `write(std::string_view line)` for each VMA of the space, in order. No lock and no effect;
/// mappings that come or go meanwhile may be missing.
template <class Space, class Write>
void numa_maps(const Space& space, Write&& write) {
    using Sync = typename Space::Sync;
    for (VirtualAddress at(0);;) {
        const typename Sync::ReadSection section;
        const auto* const vma = space.core().vmas.view().at_or_above(at);
        if (vma == nullptr)
            return;
        detail::NumaVisitor<Space> visitor(space.memory(), *vma);
        Walker<const Space, detail::NumaVisitor<Space>> walker(space, visitor);
        walker.visit_tables(vma->range);
        detail::Line line;
        detail::write_numa_line(line, *vma, visitor.counts());
        write(line.view());
        if (vma->range.last().value() == ~std::uint64_t{0})
            return;
        at = vma->range.end();
    }
}

} // namespace moat::mm
