// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Short ways to write events of one device, a millisecond apart, for tests of traffic.
#pragma once

#include "fault/recordings.hpp"
#include "watch/follower.hpp"

#include <cstdint>
#include <random>
#include <set>
#include <string_view>
#include <vector>

namespace moat::watch {

class EventList {
  public:
    void add(fault::DmaEvent event) {
        event.time_ns = now_ += 1'000'000;
        if (event.device.empty())
            event.device = "0000:00:04.0";
        events.emplace_back(event);
    }

    void map(std::uint64_t start, std::uint64_t size) {
        add({.call = "dma_map_page", .range = {Iova(start), ByteCount(size)}});
    }

    void unmap(std::uint64_t start) {
        add({.kind = fault::DmaEvent::Kind::unmap,
             .call = "dma_unmap_page",
             .range = {Iova(start), ByteCount(1)}});
    }

    void allocate(std::uint64_t start, std::uint64_t size) {
        add({.kind = fault::DmaEvent::Kind::allocate, .range = {Iova(start), ByteCount(size)}});
    }

    void free(std::uint64_t start) {
        add({.kind = fault::DmaEvent::Kind::free, .range = {Iova(start), ByteCount(1)}});
    }

    /// A refused write of a page.
    void fault(std::uint64_t start) {
        add({.kind = fault::DmaEvent::Kind::fault,
             .record = {.source = fault::Source::pci(0, 4, 0, 0),
                        .access = fault::Access::write,
                        .precision = fault::Precision::page,
                        .reason = fault::Reason::not_present,
                        .where = {Iova(start), ByteCount(4096)}}});
    }

    /// Random maps and unmaps of up to 64 buffers, below a page to four pages each, a page apart.
    void traffic(std::uint64_t seed, int steps) {
        std::mt19937_64 random(seed);
        std::set<std::uint64_t> live;
        for (; steps != 0; --steps) {
            const std::uint64_t start = (random() % 64 + 1) * 0x5000;
            if (live.insert(start).second) {
                map(start, 1 + random() % 0x4000);
            } else {
                live.erase(start);
                unmap(start);
            }
        }
    }

    std::vector<fault::OwnedEvent> events;

  private:
    std::uint64_t now_ = 1'000'000'000;
};

inline void feed(Follower& follower, const std::vector<fault::OwnedEvent>& events) {
    const auto ignore = [](const Finding&) {};
    for (const fault::OwnedEvent& each : events)
        follower.add(each.view(), ignore);
}

} // namespace moat::watch
