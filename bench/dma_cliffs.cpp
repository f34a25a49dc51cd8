// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The DMA API where it is not at its best: level exact, large buffers, two threads, memory, and
// growth. Each row stands beside a floor or beside the hot row.
#include "dma_system.hpp"

#include <array>
#include <atomic>
#include <cstring>
#include <latch>
#include <malloc.h>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace moat::bench {

namespace {

using dma::Direction;
using dma::Level;
using tests::Buffer;

/// Bytes of the heap in use.
double heap_bytes() {
    const auto now = mallinfo2();
    return static_cast<double>(now.uordblks + now.hblkhd);
}

void exact(Suite& suite) {
    System exact({.level = Level::exact});
    System track({.level = Level::track});
    const Buffer memory(page);
    const Buffer copy(page);
    for (const std::size_t size : {std::size_t{1500}, page})
        for (const auto direction :
             {Direction::to_device, Direction::from_device, Direction::bidirectional}) {
            const auto buffer = dma::Memory::own(memory.bytes().first(size));
            suite.compare({.name = "map + unmap " + std::to_string(size) + " B, exact, " +
                                   std::string(name(direction)),
                           .subject = map_and_unmap(*exact.space, buffer, direction),
                           .against = "memcpy + 2 x track",
                           .other = {.run =
                                         [&](std::uint64_t count) {
                                             for (std::uint64_t left = count; left != 0; --left) {
                                                 std::memcpy(copy.data(), memory.data(), size);
                                                 keep(*copy.data());
                                             }
                                             map_and_unmap(*track.space, buffer, direction,
                                                           2 * count);
                                         }},
                           .goal = 1});
        }
}

/// Heap bytes of a mapping of 64 bytes, beyond those at level guard.
void memory(Suite& suite) {
    constexpr std::size_t count = 10'000;
    const Buffer memory(count * page);
    const auto bytes_at = [&](Level level) {
        System system({.level = level});
        const auto map = [&](std::size_t from, std::size_t to) {
            for (std::size_t i = from; i != to; ++i)
                keep(system.space->map(dma::Memory::own(memory.bytes().subspan(i * page, 64)),
                                       Direction::from_device));
        };
        map(0, count / 2); // what only the first mappings allocate
        const double before = heap_bytes();
        map(count / 2, count);
        return (heap_bytes() - before) / (count / 2.0);
    };
    const auto row = [&](const std::string& name, Level level, double goal) {
        if (suite.wants(name))
            suite.report({.name = name,
                          .value = bytes_at(level) - bytes_at(Level::guard),
                          .unit = "bytes",
                          .goal = goal});
    };
    row("memory of a mapping, track beyond guard", Level::track, 160);
    row("memory of a 64-byte buffer, exact beyond guard", Level::exact, 4300);
}

struct Sized {
    const char* name;
    std::uint64_t offset; ///< of the memory in a 2 MiB page
    std::uint64_t size;
    std::uint64_t leaves; ///< the fewest that can map it
    bool coherent = false;
};

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t large = 2048 * kib;
constexpr std::array sizes = {
    Sized{"map + unmap 64K, guard, strict", page, 64 * kib, 16},
    Sized{"map + unmap 128K, guard, strict", page, 128 * kib, 32},
    Sized{"map + unmap 512K, guard, strict", page, 512 * kib, 128},
    Sized{"map + unmap 1M, guard, strict", page, 1024 * kib, 256},
    Sized{"map + unmap 2M aligned, guard, strict", 0, large, 1},
    Sized{"map + unmap 2M a page off, guard, strict", page, large, 512},
    Sized{"map + unmap 4M, guard, strict", 0, 2 * large, 2},
    Sized{"map + unmap coherent 64K, guard, strict", page, 64 * kib, 16, true},
    Sized{"map + unmap coherent 2M, guard, strict", 0, large, 1, true},
};

void sizes_above_a_page(Suite& suite) {
    System system({.level = Level::guard});
    const Buffer memory(4 * large, large);
    const auto small = dma::Memory::own(memory.bytes().first(page));
    static std::array<std::atomic<std::uint64_t>, 512> table{};
    for (const Sized& each : sizes) {
        const auto buffer = dma::Memory::own(memory.bytes().subspan(each.offset, each.size));
        const auto floor = [&, leaves = each.leaves](std::uint64_t count) {
            map_and_unmap(*system.space, small, Direction::bidirectional, count);
            for (; count != 0; --count)
                for (unsigned turn = 0; turn != 2; ++turn)
                    for (std::uint64_t i = 0; i != leaves; ++i)
                        table[i].store(count, std::memory_order_relaxed);
        };
        const auto coherent = [&](std::uint64_t count) {
            for (; count != 0; --count) {
                const Iova iova = *system.space->map_coherent(buffer);
                keep(iova);
                keep(system.space->unmap(iova, buffer.size(), Direction::bidirectional));
            }
        };
        suite.compare({.name = each.name,
                       .subject = each.coherent ? Side{.run = coherent}
                                                : map_and_unmap(*system.space, buffer),
                       .against = "4K pair + leaves x 2 stores",
                       .other = {.run = floor},
                       .goal = 1.5});
    }
}

/// Leaves the invalidation after an unmap to the caller.
struct Uninvalidated {
    [[nodiscard]] iommu::DomainLimits limits() const { return domain.limits(); }

    Result<void> map(Iova start, ByteCount size, PhysicalAddress memory, Attributes attributes) {
        return domain.map(start, size, memory, attributes);
    }

    Result<void> unmap(Iova start, ByteCount size) { return domain.unmap_deferred(start, size); }

    tests::SoftDomain& domain;
};

/// What deferred unmapping would take if its queue took nothing: pairs use `batch` addresses in
/// turn, and each round takes one invalidation.
class FreeQueue {
  public:
    FreeQueue(const dma::Memory& buffer, std::size_t batch) : buffer_(buffer), in_turn_(batch) {
        for (Iova& each : in_turn_)
            each = map();
    }

    void map_and_unmap(std::uint64_t count) {
        for (; count != 0; --count) {
            const Iova oldest = std::exchange(in_turn_[next_], map());
            if (++next_ == in_turn_.size()) {
                next_ = 0;
                keep(soft_.invalidate_all());
            }
            keep(space_->unmap(oldest, buffer_.size(), Direction::bidirectional));
        }
    }

  private:
    using Space = dma::Space<Uninvalidated, RealSync>;

    Iova map() { return *space_->map(buffer_, Direction::bidirectional, "buffer"); }

    dma::Memory buffer_;
    tests::OwnTables tables_;
    tests::SoftDomain soft_{tests::empty_table(tables_)};
    Uninvalidated domain_{soft_};
    std::unique_ptr<Space> space_ =
        *Space::create(domain_, {.options = {.level = Level::guard}, .pages = dma::own_pages()});
    std::vector<Iova> in_turn_;
    std::size_t next_ = 0;
};

/// A batch of invalidations must not cost more than each by itself, at any size.
void deferred_sizes(Suite& suite) {
    struct Deferred {
        std::string size_name;
        std::uint64_t size;
        std::size_t batch; ///< the one that gives the lowest floor
    };

    System strict({.level = Level::guard});
    System deferred({.level = Level::guard, .unmapping = dma::Unmapping::deferred});
    const Buffer memory(4 * large, large);
    for (const Deferred& each : {Deferred{"4K", page, 256}, Deferred{"64K", 64 * kib, 256},
                                 Deferred{"1M", 1024 * kib, 64}, Deferred{"2M", large, 64}}) {
        const std::string name =
            "map + unmap " + each.size_name + ", guard, deferred beside strict";
        const auto buffer =
            dma::Memory::own(memory.bytes().subspan(each.size == large ? 0 : page, each.size));
        suite.compare({.name = name,
                       .subject = map_and_unmap(*deferred.space, buffer),
                       .against = "strict",
                       .other = map_and_unmap(*strict.space, buffer),
                       .goal = 0.8});
        FreeQueue floor(buffer, each.batch);
        suite.compare({.name = name + ": floor",
                       .subject = {.run = [&](std::uint64_t count) { floor.map_and_unmap(count); }},
                       .against = "strict",
                       .other = map_and_unmap(*strict.space, buffer)});
    }
}

void arithmetic(unsigned thread, std::uint64_t count) {
    std::uint64_t number = thread;
    for (std::uint64_t i = 0; i != 64 * count; ++i) {
        number = number * 6364136223846793005U + 1;
        keep(number);
    }
}

void two_threads(Suite& suite) {
    const std::array buffers = {Buffer(page), Buffer(page)};
    for (const Level level : {Level::guard, Level::track}) {
        System system({.level = level});
        suite.compare_threads({.name = level == Level::guard ? "two threads in one space, guard"
                                                             : "two threads in one space, track",
                               .subject =
                                   [&](unsigned thread, std::uint64_t count) {
                                       map_and_unmap(*system.space,
                                                     dma::Memory::own(buffers[thread].bytes()),
                                                     Direction::bidirectional, count);
                                   },
                               .against = "arithmetic",
                               .other = arithmetic,
                               .goal = level == Level::guard ? 1.3 : 1.4});
    }
}

/// Threads that accessed memory once, and then sleep.
class IdleThreads {
  public:
    IdleThreads(System& system, Iova iova, unsigned count) : ready_(count) {
        for (unsigned i = 0; i != count; ++i)
            threads_.emplace_back([&, iova] {
                tests::Lane lane(system.device);
                std::array<std::byte, 1> byte{};
                keep(lane.write(iova, byte));
                ready_.count_down();
                over_.wait(false);
            });
        ready_.wait();
    }

    ~IdleThreads() {
        over_ = true;
        over_.notify_all();
    }

    IdleThreads(const IdleThreads&) = delete;
    IdleThreads& operator=(const IdleThreads&) = delete;

  private:
    std::latch ready_;
    std::atomic<bool> over_{false};
    std::vector<std::jthread> threads_;
};

struct Growth {
    Level level;
    unsigned live;
    unsigned threads;
    unsigned idle;

    [[nodiscard]] std::string name() const {
        return std::string("growth, ") + (level == Level::guard ? "guard, " : "track, ") +
               std::to_string(live) + " live, " + std::to_string(threads) + " running, " +
               std::to_string(idle) + " idle";
    }

    /// Return: nanoseconds of a pair.
    [[nodiscard]] double measure() const {
        constexpr std::uint64_t pairs = 100'000;
        const std::array buffers = {Buffer(page), Buffer(page)};
        System system({.level = level}, 8192);
        Iova last{};
        for (unsigned i = 0; i != live; ++i)
            last = *system.space->map(dma::Memory::own(buffers[0].bytes()),
                                      Direction::bidirectional, "live");
        const IdleThreads sleepers(system, last, idle);
        const ThreadWork work = [&](unsigned thread, std::uint64_t count) {
            map_and_unmap(*system.space, dma::Memory::own(buffers[thread].bytes()),
                          Direction::bidirectional, count);
        };
        return time_threads(work, threads, pairs).together;
    }
};

/// The pair while ever more mappings live, beside other threads, and beside threads that sleep.
void growth(Suite& suite) {
    for (const Level level : {Level::guard, Level::track}) {
        std::optional<double> least;
        for (const unsigned idle : {0U, 512U})
            for (const unsigned live : {10U, 1'000U, 100'000U, 1'000'000U})
                for (const unsigned threads : {1U, 2U}) {
                    const Growth each{level, live, threads, idle};
                    if (!suite.wants(each.name()))
                        continue;
                    if (!least)
                        least = Growth{level, 10, 1, 0}.measure();
                    suite.report({.name = each.name(),
                                  .value = each.measure(),
                                  .unit = "ns",
                                  .against = "10 live, 1 running, 0 idle",
                                  .against_value = *least});
                }
    }
}

} // namespace

void cliffs(Suite& suite) {
    exact(suite);
    sizes_above_a_page(suite);
    deferred_sizes(suite);
    if (suite.only_counts())
        return;
    two_threads(suite);
    memory(suite);
    growth(suite);
}

} // namespace moat::bench
