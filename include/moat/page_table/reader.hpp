// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reader: translates and walks a PageTable inside a read section. It takes no lock; writers may run
// at the same time. edit.hpp changes the tables.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/detail/walk.hpp"
#include "moat/page_table/format.hpp"
#include "moat/page_table/page_table.hpp"

#include <cstdint>
#include <optional>
#include <utility>

namespace moat {

/// The translation of one input address. Decodes the leaf's properties on demand, since that costs
/// more than the walk.
template <PageTableFormat F>
class Translation {
  public:
    constexpr Translation(std::uint64_t physical, Word word, unsigned level)
        : physical_(physical), word_(word), level_(level) {}

    /// The physical address of the translated address, not of the leaf's first byte.
    [[nodiscard]] constexpr PhysicalAddress physical() const { return PhysicalAddress(physical_); }

    /// log2 of the size of the leaf.
    [[nodiscard]] constexpr unsigned leaf_lg2() const {
        return entry_lg2<F>(level_) +
               of_level([&]<unsigned L>() { return F::template leaf_group_lg2<L>(word_); });
    }

    /// Of the one entry that was loaded; another entry of a group may hold accessed or dirty.
    [[nodiscard]] constexpr Attributes attributes() const {
        return of_level([&]<unsigned L>() { return F::template leaf_attributes<L>(word_); });
    }

    [[nodiscard]] constexpr unsigned level() const { return level_; }

    [[nodiscard]] constexpr Word word() const { return word_; }

  private:
    template <unsigned L = F::most_levels - 1, class Ask>
    [[nodiscard]] constexpr auto of_level(Ask&& ask) const {
        if constexpr (L == 0)
            return ask.template operator()<0>();
        else
            return level_ == L ? ask.template operator()<L>()
                               : of_level<L - 1>(std::forward<Ask>(ask));
    }

    std::uint64_t physical_;
    Word word_;
    unsigned level_;
};

/// While it lives, no table that it can reach is freed. For one thread. Opening one costs a locked
/// instruction, so keep it for a batch; freed tables wait for its end.
template <class Tree, class Section>
class Reader {
  public:
    using F = typename Tree::Format;
    using Input = typename Tree::Input;

    explicit Reader(const PageTable<Tree>& page_table) : page_table_(page_table) {}

    /// Inside a read section that outlives the reader.
    Reader(const PageTable<Tree>& page_table, const typename Tree::Sync::ReadSection& open)
        : section_(open), page_table_(page_table) {}

    /// The translation of `address` at one moment during the call; none for a hole, or for an
    /// address that the format cannot translate.
    [[nodiscard, gnu::always_inline]] std::optional<Translation<F>> translate(Input address) const {
        return page_table_.with_root(
            [address](auto root) __attribute__((always_inline)) -> std::optional<Translation<F>> {
                constexpr unsigned levels = decltype(root)::level + 1;
                if (!InputSpace<F>::of(address.value(), levels).contains(address.value(), 1))
                    return std::nullopt;
                return translate_from(root, address.value());
            });
    }

    /// Calls use(leaf) with the Leaf<Tree, L> that maps `address` at one moment during the call,
    /// for more than a Translation holds. Return: whether there was one.
    template <class Use>
    [[gnu::always_inline]] bool with_leaf(Input address, Use&& use) const {
        return page_table_.with_root([&](auto root) __attribute__((always_inline)) -> bool {
            constexpr unsigned levels = decltype(root)::level + 1;
            return InputSpace<F>::of(address.value(), levels).contains(address.value(), 1) &&
                   with_leaf_from(root, address.value(), use);
        });
    }

    /// Visits [start, start + size), of any alignment; detail/walk.hpp describes `visitor`. Loads
    /// each entry once; changes by concurrent writers may or may not be seen. Errors: empty,
    /// out_of_range, overflow; it visits nothing then.
    template <class Visitor>
    Result<WalkEnd> walk(Input start, ByteCount size, Visitor&& visitor) const {
        return page_table_.with_root([&](auto root) -> Result<WalkEnd> {
            if (auto valid =
                    check_range<F>(start.value(), size.value(), 0, decltype(root)::level + 1);
                !valid)
                return std::unexpected(valid.error());
            detail::Walk<Tree, std::remove_reference_t<Visitor>> walk(visitor);
            const bool complete = walk.run(root, start.value(), start.value() + (size.value() - 1));
            return complete ? WalkEnd::complete : WalkEnd::stopped;
        });
    }

  private:
    template <unsigned L, class Use>
    [[gnu::always_inline]] static bool with_leaf_from(Table<Tree, L> table, std::uint64_t address,
                                                      Use&& use) {
        return table.load(entry_index<F, L>(address))
            .match([]() __attribute__((always_inline)) { return false; },
                   [&](Leaf<Tree, L> leaf) __attribute__((always_inline)) {
                       use(leaf);
                       return true;
                   },
                   [&](auto below) __attribute__((always_inline)) {
                       return with_leaf_from(below, address, use);
                   });
    }

    template <unsigned L>
    [[gnu::always_inline]] static std::optional<Translation<F>>
    translate_from(Table<Tree, L> table, std::uint64_t address) {
        return table.load(entry_index<F, L>(address))
            .match([]() __attribute__((
                       always_inline)) -> std::optional<Translation<F>> { return std::nullopt; },
                   [&](Leaf<Tree, L> leaf)
                       __attribute__((always_inline)) -> std::optional<Translation<F>> {
                           const std::uint64_t offset = address & low_bits(leaf.size_lg2());
                           return Translation<F>(leaf.physical().value() | offset, leaf.word(), L);
                       },
                   [&](auto below) __attribute__((always_inline)) -> std::optional<Translation<F>> {
                       return translate_from(below, address);
                   });
    }

    // Opened before the first load, closed after the last.
    [[no_unique_address]] Section section_;
    const PageTable<Tree>& page_table_;
};

} // namespace moat
