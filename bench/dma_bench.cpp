// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the DMA API costs beside its parts: an address from the allocator, and a leaf in a table.
// Goals and why each figure is what it is: docs/design/dma.md.
#include "moat/moat.hpp"

#include "dma_system.hpp"

#include <array>
#include <atomic>
#include <span>
#include <thread>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;
using namespace moat::tests;
using dma::Direction;
using dma::Level;
using dma::Unmapping;
using tests::Buffer;

/// What the same takes apart: the allocator's pair, and the table's with its invalidation.
struct Parts {
    explicit Parts(bool strict) : strict_(strict) {}

    Side both(const dma::Memory& memory) {
        return {.run = [this, memory](std::uint64_t count) {
            for (std::uint64_t left = count; left != 0; --left) {
                const auto iova = *allocator->allocate({.size = ByteCount(page)});
                keep(iova);
                keep(
                    allocator->release(iova, ByteCount(page),
                                       strict_ ? iova::When::now : iova::When::after_invalidation));
            }
            const Iova iova(0x100000000);
            for (std::uint64_t left = count; left != 0; --left) {
                keep(system.domain.map(iova, ByteCount(page), memory.physical, read_write));
                if (strict_)
                    keep(system.domain.unmap(iova, ByteCount(page)));
                else
                    keep(system.domain.unmap_deferred(iova, ByteCount(page)));
            }
        }};
    }

    using Allocator = iova::Allocator<RealSync>;

    bool strict_;
    System system{{.level = Level::guard}};
    std::array<IovaRange, 1> aperture = {IovaRange(Iova(page), ByteCount(std::uint64_t{1} << 47))};
    Allocator::Owner allocator = *Allocator::create(
        {.aperture = aperture,
         .guard = {.before = {}, .after = ByteCount(page)},
         .invalidation = {
             [](void* domain) { return static_cast<SoftDomain*>(domain)->invalidate_all(); },
             &system.domain}});
};

/// A device that copies without pause, on a thread of its own.
class BusyDevice {
  public:
    explicit BusyDevice(System& system)
        : buffer_(page),
          iova_(*system.space->map(dma::Memory::own(buffer_.bytes()), Direction::bidirectional)),
          space_(*system.space), thread_([this, &system](const std::stop_token& stop) {
              Lane lane(system.device);
              std::array<std::byte, 256> data{};
              while (!stop.stop_requested())
                  keep(lane.write(iova_, data));
          }) {}

    ~BusyDevice() {
        thread_.request_stop();
        thread_.join();
        keep(space_.unmap(iova_, ByteCount(page), Direction::bidirectional));
    }

  private:
    Buffer buffer_;
    Iova iova_;
    Space& space_;
    std::jthread thread_;
};

void levels(Suite& suite, const dma::Memory& memory) {
    System guard({.level = Level::guard});
    {
        Parts parts(true);
        suite.compare({.name = "map + unmap 4K, guard, strict, device idle",
                       .subject = map_and_unmap(*guard.space, memory),
                       .against = "the sum of its parts",
                       .other = parts.both(memory),
                       .goal = 1.5});
    }
    if (!suite.only_counts() && suite.wants("map + unmap 4K, guard, strict, device busy")) {
        Parts parts(true);
        const BusyDevice busy(guard);
        const BusyDevice also(parts.system);
        suite.compare({.name = "map + unmap 4K, guard, strict, device busy",
                       .subject = map_and_unmap(*guard.space, memory),
                       .against = "the sum of its parts",
                       .other = parts.both(memory),
                       .goal = 1.5});
    }
    {
        System deferred({.level = Level::guard, .unmapping = Unmapping::deferred});
        Parts parts(false);
        suite.compare({.name = "map + unmap 4K, guard, deferred",
                       .subject = map_and_unmap(*deferred.space, memory),
                       .against = "the sum of its parts",
                       .other = parts.both(memory),
                       .goal = 1.5});
    }
    suite.compare({.name = "map + unmap 4K, guard, strict, instructions",
                   .subject = map_and_unmap(*guard.space, memory),
                   .goal = 350,
                   .measure = Measure::instructions});
    System off({.level = Level::guard, .guard = {}});
    suite.compare({.name = "map + unmap 4K, guard on, instructions",
                   .subject = map_and_unmap(*guard.space, memory),
                   .against = "guard off",
                   .other = map_and_unmap(*off.space, memory),
                   .goal = 1.05,
                   .measure = Measure::instructions});
    System sampled({.sample = 1000});
    dma::sample_random::seed(1); // the same mappings in every run
    suite.compare({.name = "map + unmap 4K, sample=1000, instructions",
                   .subject = map_and_unmap(*sampled.space, memory),
                   .against = "level guard",
                   .other = map_and_unmap(*guard.space, memory),
                   .goal = 1.05,
                   .measure = Measure::instructions,
                   .counted = 100'000});
    System track({.level = Level::track});
    suite.compare({.name = "map + unmap 4K, track, instructions",
                   .subject = map_and_unmap(*track.space, memory),
                   .against = "level guard",
                   .other = map_and_unmap(*guard.space, memory),
                   .goal = 1.5,
                   .measure = Measure::instructions});
    suite.compare({.name = "map + unmap 4K, track without stacks",
                   .subject = map_and_unmap(*track.space, memory),
                   .against = "level guard",
                   .other = map_and_unmap(*guard.space, memory),
                   .goal = 1.5});
}

/// The front door beside the templates behind it.
void front_door(Suite& suite, const dma::Memory& memory) {
    for (const Level level : {Level::guard, Level::track}) {
        System system({.level = level});
        auto container =
            Container::open({.level = level, .environment = Environment::ignore}).value();
        const auto buffer = container.allocate(page).value();
        suite.compare(
            {.name = level == Level::guard ? "moat.hpp: map + unmap, level guard, instructions"
                                           : "moat.hpp: map + unmap, level track, instructions",
             .subject =
                 {.run =
                      [&](std::uint64_t count) {
                          for (; count != 0; --count)
                              keep(container.map(buffer, bidirectional, "buffer").value().iova());
                      }},
             .against = "the templates",
             .other = map_and_unmap(*system.space, memory),
             .goal = 1.15,
             .measure = Measure::instructions});
    }
}

/// What any driver's loop over a list of single pages does: checks sizes, looks at each entry and
/// writes it, joins the addresses to segments; then clears the entries.
class ListByHand {
  public:
    void map_and_unmap(std::span<const dma::Memory> pieces, std::span<dma::Segment> segments) {
        std::uint64_t bytes = 0;
        for (const dma::Memory& each : pieces) {
            if (each.bytes.empty() || each.bytes.size() > page)
                return;
            bytes += page;
        }
        std::size_t count = 0;
        Iova at(0x100000000);
        keep(bytes);
        for (std::size_t i = 0; i != pieces.size(); ++i) {
            if (table_[i].load(std::memory_order_acquire) != 0)
                return;
            table_[i].store(pieces[i].physical.value() | 3, std::memory_order_release);
            if (count != 0 &&
                segments[count - 1].iova.value() + segments[count - 1].size.value() == at.value())
                segments[count - 1].size += pieces[i].size();
            else
                segments[count++] = {at, pieces[i].size()};
            at = Iova(at.value() + page);
        }
        keep(count);
        for (auto& each : table_)
            if (each.load(std::memory_order_acquire) != 0)
                each.store(0, std::memory_order_release);
    }

  private:
    std::array<std::atomic<std::uint64_t>, 256> table_{};
};

/// 256 pages whose memory lies apart, so that nothing can be mapped as one.
void lists(Suite& suite) {
    constexpr std::uint64_t pages = 256;
    System system({.level = Level::guard});
    const Buffer buffer(2 * pages * page);
    std::vector<dma::Memory> pieces;
    for (std::uint64_t i = 0; i != pages; ++i)
        pieces.push_back(dma::Memory::own(buffer.bytes().subspan(2 * i * page, page)));
    std::vector<dma::Segment> segments(pages);
    ListByHand by_hand;
    suite.compare({.name = "map + unmap of 256 segments (1 MiB)",
                   .subject = {.run =
                                   [&](std::uint64_t count) {
                                       for (; count != 0; --count) {
                                           const auto list = *system.space->map_list(
                                               pieces, Direction::bidirectional, segments);
                                           keep(list.segments.size());
                                           keep(system.space->unmap(list.start, list.size,
                                                                    Direction::bidirectional));
                                       }
                                   }},
                   .against = "a 4K pair, and a loop over the pieces there and back",
                   .other = {.run =
                                 [&](std::uint64_t count) {
                                     map_and_unmap(*system.space, pieces.front(),
                                                   Direction::bidirectional, count);
                                     for (; count != 0; --count)
                                         by_hand.map_and_unmap(pieces, segments);
                                 }},
                   .goal = 3});
}

} // namespace

int main(int argc, char** argv) {
    Suite suite("dma", argc, argv);
    const tests::Buffer buffer(page);
    levels(suite, dma::Memory::own(buffer.bytes()));
    front_door(suite, dma::Memory::own(buffer.bytes()));
    lists(suite);
    cliffs(suite);
    return suite.finish();
}
