// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The snapshot rule, as types: Table::load returns an immutable Entry, and Entry::match is the only
// way to the Table below it. So a walker cannot test one value of an entry and descend through
// another. Source: the page-walk race, docs/design/page_table.md.
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/format.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/concept.hpp"

#include <atomic>
#include <cstdint>

namespace moat {

/// The types that define a tree of tables.
template <PageTableFormat F, SyncPolicy S, TableMemory M>
struct Tree {
    using Format = F;
    using Sync = S;
    using Memory = M;
    using Input = typename F::Input;
};

template <class Tree, unsigned L>
class Entry;
template <class Tree, unsigned L>
class Table;
template <class Tree>
class PageTable;
template <class Tree>
class EntryWriter;

/// An entry that held a leaf when it was loaded.
template <class Tree, unsigned L>
class Leaf {
  public:
    using Format = typename Tree::Format;
    static constexpr unsigned level = L;

    /// log2 of the bytes that the whole leaf maps, all entries of a group together.
    [[nodiscard, gnu::always_inline]] unsigned size_lg2() const {
        return entry_lg2<Format>(L) + Format::template leaf_group_lg2<L>(word_);
    }

    [[nodiscard]] ByteCount size() const { return ByteCount(bit(size_lg2())); }

    /// The leaf's first input address, from any address inside it.
    [[nodiscard]] typename Tree::Input start(typename Tree::Input inside) const {
        return typename Tree::Input(align_down(inside.value(), size_lg2()));
    }

    /// The physical address of the leaf's first byte.
    [[nodiscard, gnu::always_inline]] PhysicalAddress physical() const {
        return PhysicalAddress(Format::template leaf_physical<L>(word_));
    }

    [[nodiscard, gnu::always_inline]] Attributes attributes() const {
        return Format::template leaf_attributes<L>(word_);
    }

    /// The entry as the hardware reads it.
    [[nodiscard]] Word word() const { return word_; }

  private:
    friend class Entry<Tree, L>;
    friend class Table<Tree, L>;

    explicit Leaf(Word word) : word_(word) {}

    Word word_;
};

/// A table of level L, reached from the root through snapshots. Valid as long as the Reader or Edit
/// that it came from.
template <class Tree, unsigned L>
class Table {
  public:
    static constexpr unsigned level = L;
    static constexpr unsigned entries = 1U << Tree::Format::index_bits(L);

    /// Loads an entry once. `index` is below `entries`.
    [[nodiscard, gnu::always_inline]] Entry<Tree, L> load(unsigned index) const {
        using Ref = typename Tree::Sync::template AtomicRef<Word>;
        // Acquire: the words of the table below are initialised.
        return Entry<Tree, L>(Ref(words_[index]).load(std::memory_order_acquire), memory_);
    }

    /// `leaf`, loaded at `index`, with the accessed and dirty bits of all entries of its group,
    /// which it loads one after the other.
    [[nodiscard]] Leaf<Tree, L> with_group_flags(Leaf<Tree, L> leaf, unsigned index) const {
        using F = typename Tree::Format;
        const unsigned group_lg2 = F::template leaf_group_lg2<L>(leaf.word());
        const unsigned first = index & ~static_cast<unsigned>(low_bits(group_lg2));
        Word word = leaf.word();
        for (unsigned i = first; i != first + (1U << group_lg2); ++i)
            if (const Word other = load(i).word(); F::template kind<L>(other) == EntryKind::leaf)
                word = F::merge_accessed_dirty(word, other);
        return Leaf<Tree, L>(word);
    }

  private:
    friend class PageTable<Tree>;
    friend class EntryWriter<Tree>;
    template <class, unsigned>
    friend class Entry;

    Table(Word* words, typename Tree::Memory* memory) : words_(words), memory_(memory) {}

    Word* words_;
    typename Tree::Memory* memory_;
};

/// An immutable snapshot of one entry.
template <class Tree, unsigned L>
class Entry {
  public:
    using Format = typename Tree::Format;
    static constexpr unsigned level = L;

    [[nodiscard, gnu::always_inline]] EntryKind kind() const {
        return Format::template kind<L>(word_);
    }

    [[nodiscard]] Word word() const { return word_; }

    /// Calls `absent()`, `leaf(Leaf<Tree, L>)` or `table(Table<Tree, L - 1>)`, as the entry is. A
    /// kind that the level cannot hold is not instantiated.
    template <class OnAbsent, class OnLeaf, class OnTable>
    [[gnu::always_inline]] decltype(auto) match(OnAbsent&& absent, OnLeaf&& leaf,
                                                OnTable&& table) const {
        const EntryKind is = kind();
        if constexpr (L > 0)
            if (is == EntryKind::table) [[likely]]
                return table(below());
        if constexpr (can_be_leaf<Format>(L))
            if (is == EntryKind::leaf) [[likely]]
                return leaf(Leaf<Tree, L>(word_));
        return absent();
    }

  private:
    friend class Table<Tree, L>;

    Entry(Word word, typename Tree::Memory* memory) : word_(word), memory_(memory) {}

    [[nodiscard, gnu::always_inline]] Table<Tree, L - 1> below() const
        requires(L > 0)
    {
        const PhysicalAddress table(Format::template table_physical<L>(word_));
        return Table<Tree, L - 1>(memory_->words(table), memory_);
    }

    Word word_;
    typename Tree::Memory* memory_;
};

} // namespace moat
