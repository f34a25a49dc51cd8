// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// IntervalIndex: finds intervals of addresses, which may overlap, and their values. Not thread-
// safe; double_mappings.hpp and src/dma/cpu_watch.cpp lock it.
#pragma once

#include "moat/core/bits.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

namespace moat::dma {

/// One sorted map per power of two of sizes, so that a search looks back by at most twice the
/// length of what it may find: O(log n) per size class in use, and per interval found.
template <class Value>
class IntervalIndex {
  public:
    [[nodiscard]] bool empty() const { return classes_ == 0; }

    /// `first` <= `last`. Throws std::bad_alloc; nothing changes then.
    void add(std::uint64_t first, std::uint64_t last, const Value& value) {
        const unsigned size_class = class_of(first, last);
        if (spares_ == 0) {
            by_first_[size_class].emplace(first, Entry{last, value});
        } else {
            auto& node = spare_[--spares_];
            node.key() = first;
            node.mapped() = {last, value};
            by_first_[size_class].insert(std::move(node));
        }
        classes_ |= bit(size_class);
    }

    /// Removes one interval that was added with these bounds and whose value `accept` accepts.
    template <class Accept>
    void remove(std::uint64_t first, std::uint64_t last, Accept&& accept) {
        const unsigned size_class = class_of(first, last);
        auto& entries = by_first_[size_class];
        const auto [begin, end] = entries.equal_range(first);
        for (auto each = begin; each != end; ++each)
            if (each->second.last == last && accept(each->second.value)) {
                if (spares_ == spare_.size())
                    entries.erase(each);
                else
                    spare_[spares_++] = entries.extract(each);
                break;
            }
        if (entries.empty())
            classes_ &= ~bit(size_class);
    }

    /// Calls visit(first, last, value) for intervals that overlap [first, last] until it returns
    /// true. Return: whether it did.
    template <class Visit>
    bool find(std::uint64_t first, std::uint64_t last, Visit&& visit) const {
        for (std::uint64_t left = classes_; left != 0; left &= left - 1) {
            const auto size_class = static_cast<unsigned>(std::countr_zero(left));
            const std::uint64_t longest = low_bits(size_class) | bit(size_class);
            const auto& entries = by_first_[size_class];
            for (auto each = entries.lower_bound(first > longest ? first - longest : 0);
                 each != entries.end() && each->first <= last; ++each)
                if (each->second.last >= first &&
                    visit(each->first, each->second.last, each->second.value))
                    return true;
        }
        return false;
    }

  private:
    struct Entry {
        std::uint64_t last;
        Value value;
    };

    /// n, for an interval whose last number is 2^n to 2^(n+1) - 1 above its first.
    [[nodiscard]] static unsigned class_of(std::uint64_t first, std::uint64_t last) {
        return last == first ? 0 : floor_lg2(last - first);
    }

    using Entries = std::multimap<std::uint64_t, Entry>;

    std::array<Entries, 64> by_first_;
    std::uint64_t classes_ = 0; ///< bit n: by_first_[n] has entries
    /// Nodes of removed intervals, for the next ones; the first `spares_` are in use.
    std::array<typename Entries::node_type, 16> spare_;
    std::size_t spares_ = 0;
};

} // namespace moat::dma
