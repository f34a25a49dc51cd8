// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The translation of one input address, as Reader::translate returns it. It decodes the leaf's
// properties on demand, since that costs more than the walk.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/format.hpp"

#include <cstdint>
#include <utility>

namespace moat {

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

} // namespace moat
