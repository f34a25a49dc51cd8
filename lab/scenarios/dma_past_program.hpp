// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rings of past mappings under the explorer: threads unmap mappings of one page in turn, while
// others take the entries over into an index. dma_past.cpp and its mutants instantiate it.
#pragma once

#include "moat/dma/registry.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/dma_sizes.hpp"
#include "lab/scenarios/scenario.hpp"

#include <array>
#include <cstddef>

namespace moat::scenarios::dma_past {

/// A vector in the explored memory.
template <class T>
class Entries {
  public:
    [[nodiscard]] T* begin() { return all_.data(); }

    [[nodiscard]] T* end() { return all_.data() + count_; }

    [[nodiscard]] std::size_t size() const { return count_; }

    void clear() { count_ = 0; }

    void push_back(const T& value) {
        ExploredSync::check(count_ != all_.size(), "the entries have room");
        all_[count_++] = value;
    }

    void erase(T* first, T* last) {
        ExploredSync::check(last == end(), "only the end is erased");
        count_ -= static_cast<std::size_t>(last - first);
    }

  private:
    std::array<T, 16> all_{};
    std::size_t count_ = 0;
};

/// The mappings of the page have the sizes 1, 2, 3 and so on, in the order of their unmaps.
template <class Sync>
struct World {
    using Rings = dma::PastRings<Sync>;

    explicit World(std::size_t capacity) : rings(capacity) {}

    Rings rings;
    ExploredSync::Mutex page; ///< excludes two mappings of the page, as the slot's lock does
    std::uint64_t unmapped MOAT_GUARDED_BY(page) = 0;
    typename Rings::Stamp stamp MOAT_GUARDED_BY(page) = 0;
    ExploredSync::Mutex index; ///< excludes two calls of `take`, as RecentPast does
    std::uint64_t taken MOAT_GUARDED_BY(index) = 0; ///< the latest mapping that the index has
};

template <class Sync>
void unmap(World<Sync>& world) {
    constexpr std::uint64_t page = 1;
    auto* const own = world.rings.own();
    ExploredSync::check(own != nullptr, "the arena has room");
    const ExclusiveLock lock(world.page);
    dma::PackedMapping mapping;
    mapping.set(Iova(page << 12), ByteCount(++world.unmapped), dma::Direction::bidirectional, {},
                {});
    world.stamp = world.rings.note(*own, mapping, page, {}, world.stamp);
}

/// The index gets every mapping that was unmapped before, in order, and none twice. If a ring lost
/// some, it gets the latest ones without a gap.
template <class Sync>
void take(World<Sync>& world) {
    const ExclusiveLock lock(world.index);
    world.page.lock();
    const std::uint64_t before = world.unmapped;
    world.page.unlock();
    Entries<typename dma::PastRings<Sync>::Taken> entries;
    const bool complete = world.rings.take(entries);
    std::uint64_t last = complete ? world.taken : 0;
    for (const auto& each : entries) {
        const std::uint64_t number = each.entry.mapping.unpack(1, {}).mapping.range.size().value();
        ExploredSync::check(number == last + 1 || (!complete && last == 0),
                            "past mappings of a page are out of order");
        last = number;
    }
    ExploredSync::check(last >= before, "a past mapping is missed");
    world.taken = last;
}

template <class Sync>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const unsigned drivers = number(text, "drivers");
    const unsigned queries = number(text, "queries");
    const unsigned turns = number(text, "turns");
    const unsigned capacity = number(text, "capacity");
    return [=](explore::Setup& setup) {
        auto& world = setup.make<World<Sync>>(capacity);
        for (unsigned i = 0; i != drivers; ++i)
            setup.thread("driver", [&world, turns] {
                for (unsigned turn = 0; turn != turns; ++turn)
                    unmap(world);
            });
        for (unsigned i = 0; i != queries; ++i)
            setup.thread("query", [&world] { take(world); });
        setup.at_end([&world] { take(world); });
    };
}

} // namespace moat::scenarios::dma_past
