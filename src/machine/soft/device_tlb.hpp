// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DeviceTlb: a model's own cache of translations, as PCI Express ATS allows it: what is cached
// needs no IOMMU until the domain invalidates it. soft_machine.cpp gives it to models that ask for
// one.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/range.hpp"
#include "moat/fault/record.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>

namespace moat::machine::soft {

/// Pages of 4K, as many as are accessed. Used by one thread.
class DeviceTlb {
  public:
    static constexpr unsigned page_lg2 = 12;

    /// Accesses [start, start + size) page by page: use(memory, offset, size) for each page that is
    /// cached, or that `translate(page)` finds: a pointer to its memory, or nullptr. `use` returns
    /// whether there is memory still. Return: how many bytes were accessed in order.
    template <class Translate, class Use>
    [[nodiscard]] std::uint64_t access(fault::Access kind, Iova start, std::uint64_t size,
                                       Translate&& translate, Use&& use) {
        std::uint64_t done = 0;
        while (done != size && start.value() + done >= start.value()) {
            const std::uint64_t address = start.value() + done;
            const Key key{address >> page_lg2, kind};
            const auto known = pages_.find(key);
            std::byte* const memory =
                known != pages_.end() ? known->second : translate(Iova(key.page << page_lg2));
            if (memory == nullptr)
                break;
            pages_.insert_or_assign(key, memory);
            const std::uint64_t offset = address & low_bits(page_lg2);
            const std::uint64_t here = std::min(size - done, bit(page_lg2) - offset);
            if (!use(memory + offset, done, here))
                break;
            done += here;
        }
        return done;
    }

    /// Forgets the pages of `range`, which is not empty.
    void invalidate(IovaRange range) {
        pages_.erase(pages_.lower_bound({range.start().value() >> page_lg2, fault::Access{}}),
                     pages_.lower_bound({(range.last().value() >> page_lg2) + 1, fault::Access{}}));
    }

    void invalidate_all() { pages_.clear(); }

  private:
    struct Key {
        std::uint64_t page;
        fault::Access kind;

        friend auto operator<=>(const Key&, const Key&) = default;
    };

    std::map<Key, std::byte*> pages_;
};

} // namespace moat::machine::soft
