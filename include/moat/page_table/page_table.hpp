// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// PageTable: owns a tree of tables and opens Readers (reader.hpp) and Edits (edit.hpp) on it.
// Include those.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/result.hpp"
#include "moat/page_table/detail/geometry.hpp"
#include "moat/page_table/detail/held_tables.hpp"
#include "moat/page_table/entry.hpp"

#include <atomic>
#include <cstdint>
#include <utility>

namespace moat {

template <class Tree, class Section = typename Tree::Sync::ReadSection>
class Reader;
template <class Tree>
class Edit;

/// Checks a range before any change. `physical` (0: none) must be aligned like the range;
/// granule 0 allows any alignment.
template <PageTableFormat F>
[[nodiscard]] Result<void> check_range(std::uint64_t start, std::uint64_t size,
                                       std::uint64_t granule_lg2, unsigned levels) {
    const auto space = InputSpace<F>::of(start, levels);
    if (size == 0)
        return fail(ErrorCode::empty, "the range has no length", {"start", start});
    if (!is_aligned(start | size, static_cast<unsigned>(granule_lg2)))
        return fail(ErrorCode::unaligned, "start and size must be multiples of the page",
                    {"start", start}, {"size", size}, {"page", bit(F::granule_lg2)});
    if (start + (size - 1) < start)
        return fail(ErrorCode::overflow, "the range ends past 2^64", {"start", start},
                    {"size", size});
    if (!space.contains(start, size))
        return fail(ErrorCode::out_of_range, "the format cannot translate the whole range",
                    {"start", start}, {"size", size}, {"address_bits", input_bits<F>(levels)},
                    {"levels", levels});
    return {};
}

/// The values of a device's or processor's root register.
struct Root {
    PhysicalAddress table;
    unsigned levels;
};

/// Proof that a read section is open.
template <SyncPolicy Sync>
class OpenSection {
  public:
    explicit OpenSection(const typename Sync::ReadSection&) {}
};

/// A tree of page tables. Any number of threads may hold Readers. Threads may hold Edits at the
/// same time, without a lock, if they change disjoint ranges: the owner of the ranges (an IOVA
/// allocator, the lock of an address space) ensures that. `Tree::Memory` outlives the PageTable.
template <class Tree_>
class PageTable {
  public:
    using Tree = Tree_;
    using F = typename Tree::Format;
    using Input = typename Tree::Input;
    using Memory = typename Tree::Memory;

    /// An empty tree of `levels` levels. Errors: unsupported (levels), no_memory.
    static Result<PageTable> create(Memory& memory, unsigned levels = F::fewest_levels) {
        if (levels < F::fewest_levels || levels > F::most_levels)
            return fail(ErrorCode::unsupported, "the format does not support this number of levels",
                        {"levels", levels}, {"fewest", F::fewest_levels}, {"most", F::most_levels});
        const Result<PhysicalAddress> top = memory.allocate(table_bytes_lg2<F>(levels - 1));
        if (!top)
            return std::unexpected(top.error());
        return PageTable(memory, *top, levels);
    }

    /// Moves the tree. No Reader or Edit may be open on either.
    PageTable(PageTable&& other) noexcept
        : memory_(other.memory_), root_(other.root_.load(std::memory_order_relaxed)),
          top_(other.top_.load(std::memory_order_relaxed)),
          root_words_(std::exchange(other.root_words_, nullptr)), held_(std::move(other.held_)) {
        other.root_.store(0, std::memory_order_relaxed);
    }

    PageTable& operator=(PageTable&&) = delete;
    PageTable(const PageTable&) = delete;
    PageTable& operator=(const PageTable&) = delete;

    /// Frees every table at once. No Reader or Edit may be open, and no device may walk the tables.
    ~PageTable() {
        if (root_words_ == nullptr)
            return;
        const PhysicalAddress top = root().table;
        with_root([&](auto table) { free_table(table, top); });
    }

    /// `invalidate`: see Edit's constructor.
    template <class Invalidate>
    [[nodiscard]] Edit<Tree> edit(Invalidate& invalidate) {
        return Edit<Tree>(*this, invalidate);
    }

    [[nodiscard]] Reader<Tree> reader() const { return Reader<Tree>(*this); }

    /// The same inside a read section that the caller keeps open longer.
    [[nodiscard, gnu::always_inline]] auto
    reader(const typename Tree::Sync::ReadSection& open) const {
        return Reader<Tree, OpenSection<typename Tree::Sync>>(*this, open);
    }

    [[nodiscard]] Root root() const {
        const std::uint64_t packed = root_.load(std::memory_order_acquire);
        return {PhysicalAddress(align_down(packed, F::granule_lg2)),
                static_cast<unsigned>(packed & low_bits(F::granule_lg2))};
    }

    [[nodiscard]] Memory& memory() const { return *memory_; }

  private:
    template <class, class>
    friend class Reader;
    friend class Edit<Tree>;

    PageTable(Memory& memory, PhysicalAddress top, unsigned levels)
        : memory_(&memory), root_(top.value() | levels), top_(packed(memory.words(top), levels)),
          root_words_(memory.words(top)) {}

    static constexpr bool grows = F::fewest_levels != F::most_levels;
    static_assert(F::most_levels < alignof(Word));

    static std::uint64_t packed(Word* words, unsigned levels) {
        return reinterpret_cast<std::uintptr_t>(words) | levels;
    }

    /// Calls `use` with the top table, whose level is a constant there. A growing tree's unusual
    /// numbers of levels have a function of their own. It takes `use` by value: what a closure
    /// captures by value stays in registers in the caller.
    template <class Use>
    [[gnu::always_inline]] decltype(auto) with_root(Use use) const {
        if constexpr (!grows)
            return use(Table<Tree, F::most_levels - 1>(root_words_, memory_));
        else {
            const std::uint64_t top = top_.load(std::memory_order_acquire);
            const auto levels = static_cast<unsigned>(top % alignof(Word));
            Word* const words = reinterpret_cast<Word*>(top - levels);
            if (levels == usual_levels) [[likely]]
                return use(Table<Tree, usual_levels - 1>(words, memory_));
            return with_unusual_root(words, levels, use);
        }
    }

    /// Of most growing trees: four translate 48 bits.
    static constexpr unsigned usual_levels = F::most_levels < 4     ? F::most_levels
                                             : F::fewest_levels > 4 ? F::fewest_levels
                                                                    : 4;

    template <class Use>
    [[gnu::noinline]] decltype(auto) with_unusual_root(Word* words, unsigned levels,
                                                       Use use) const {
        return with_one_of<F::most_levels - 1>(words, levels, use);
    }

    template <unsigned L, class Use>
    [[gnu::always_inline]] decltype(auto) with_one_of(Word* words, unsigned levels,
                                                      Use& use) const {
        if constexpr (L + 1 > F::fewest_levels)
            if (L + 1 == usual_levels || levels <= L)
                return with_one_of<L - 1>(words, levels, use);
        return use(Table<Tree, L>(words, memory_));
    }

    /// Return: whether `old` was still the root, and no other edit was replacing it.
    bool replace_root(Root old, Root fresh) {
        std::uint64_t expected = old.table.value() | old.levels;
        if (top_.load(std::memory_order_acquire) != packed(memory_->words(old.table), old.levels) ||
            !root_.compare_exchange_strong(expected, fresh.table.value() | fresh.levels,
                                           std::memory_order_acq_rel, std::memory_order_acquire))
            return false;
        top_.store(packed(memory_->words(fresh.table), fresh.levels), std::memory_order_release);
        return true;
    }

    template <unsigned L>
    void free_table(Table<Tree, L> table, PhysicalAddress physical) {
        if constexpr (L > 0)
            for (unsigned i = 0; i != Table<Tree, L>::entries; ++i) {
                const Entry<Tree, L> entry = table.load(i);
                entry.match([] {}, [](auto) {},
                            [&](auto below) {
                                free_table(below, PhysicalAddress(
                                                      F::template table_physical<L>(entry.word())));
                            });
            }
        memory_->release(physical, table_bytes_lg2<F>(L));
    }

    Memory* memory_;
    /// The top table's address with the number of levels in its low bits: one word, so that readers
    /// of a growing tree see the old top or the new one.
    typename Tree::Sync::template Atomic<std::uint64_t> root_;
    /// The same as the walks of a growing tree need it: with the address of the top table's words.
    /// The edit that changed `root_` changes it next, and only then another may.
    typename Tree::Sync::template Atomic<std::uint64_t> top_;
    Word* root_words_; ///< of a tree that does not grow; nullptr in one that was moved from
    HeldTables<typename Tree::Sync, Memory> held_;
};

} // namespace moat
