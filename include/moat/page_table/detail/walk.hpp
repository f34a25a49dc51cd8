// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The read-only walk: holes, leaves and tables of a range, in order of their addresses.
// It changes nothing and takes no lock. Reader::walk is its front; the address space builds on it.
#pragma once

#include "moat/page_table/detail/geometry.hpp"
#include "moat/page_table/entry.hpp"

#include <cstdint>
#include <type_traits>
#include <utility>

namespace moat {

/// What a visitor's function answers; one that returns void always goes on.
enum class WalkControl : std::uint8_t {
    next, ///< go on; into the table, when it was a table
    skip, ///< go on behind the table that was visited
    stop, ///< end the walk here
};

enum class WalkEnd : std::uint8_t { complete, stopped };

namespace detail {

/// A visitor's answer, where it gives one.
template <class Call>
[[gnu::always_inline]] inline WalkControl answer(Call&& call) {
    if constexpr (std::is_void_v<decltype(call())>) {
        call();
        return WalkControl::next;
    } else {
        return call();
    }
}

/// A visitor has at least one of these; each takes the snapshot and may return WalkControl.
///   leaf(Input start, Leaf<Tree, L>)    once for each leaf; `start` may lie before the range
///   hole(Input start, ByteCount size)   once for each absent entry, clipped to the range
///   table(Input start, Entry<Tree, L>)  before what is below it; `start` may lie before the range
template <class Tree, class Visitor>
class Walk {
  public:
    using F = typename Tree::Format;
    using Input = typename Tree::Input;

    explicit Walk(Visitor& visitor) : visitor_(visitor) {}

    /// [start, last] lies within the table. Return: false when the visitor stopped the walk.
    template <unsigned L>
    bool run(Table<Tree, L> table, std::uint64_t start, std::uint64_t last) {
        unsigned index = entry_index<F, L>(start);
        const unsigned last_index = entry_index<F, L>(last);
        for (;;) {
            const std::uint64_t entry_last = start | low_bits(entry_lg2<F>(L));
            const Entry<Tree, L> entry = table.load(index);
            unsigned next = index + 1;
            std::uint64_t next_start = entry_last + 1;
            const bool go_on = entry.match(
                [&] __attribute__((always_inline)) {
                    return hole(start, entry_last < last ? entry_last : last);
                },
                [&](Leaf<Tree, L> found) __attribute__((always_inline)) {
                    if constexpr (F::leaf_groups(L) > 1) {
                        const std::uint64_t leaf_last = start | low_bits(found.size_lg2());
                        next = index +
                               static_cast<unsigned>((leaf_last - start) >> entry_lg2<F>(L)) + 1;
                        next_start = leaf_last + 1;
                        return leaf(start, table.with_group_flags(found, index));
                    } else {
                        return leaf(start, found);
                    }
                },
                [&](auto below) __attribute__((always_inline)) {
                    const WalkControl control = visit_table(start, entry);
                    if (control != WalkControl::next)
                        return control == WalkControl::skip;
                    return run(below, start, entry_last < last ? entry_last : last);
                });
            if (!go_on)
                return false;
            if (next > last_index)
                return true;
            index = next;
            start = next_start;
        }
    }

  private:
    [[gnu::always_inline]] bool hole(std::uint64_t start, std::uint64_t last) {
        if constexpr (requires { visitor_.hole(Input(start), ByteCount(1)); })
            return answer([&]() __attribute__((always_inline)) {
                       return visitor_.hole(Input(start), ByteCount(last - start + 1));
                   }) != WalkControl::stop;
        else
            return true;
    }

    template <unsigned L>
    [[gnu::always_inline]] bool leaf(std::uint64_t inside, Leaf<Tree, L> found) {
        if constexpr (requires { visitor_.leaf(Input(inside), found); })
            return answer([&]() __attribute__((always_inline)) {
                       return visitor_.leaf(found.start(Input(inside)), found);
                   }) != WalkControl::stop;
        else
            return true;
    }

    template <unsigned L>
    [[gnu::always_inline]] WalkControl visit_table(std::uint64_t inside, Entry<Tree, L> entry) {
        if constexpr (requires { visitor_.table(Input(inside), entry); })
            return answer([&]() __attribute__((always_inline)) {
                return visitor_.table(Input(align_down(inside, entry_lg2<F>(L))), entry);
            });
        else
            return WalkControl::next;
    }

    Visitor& visitor_;
};

} // namespace detail

} // namespace moat
