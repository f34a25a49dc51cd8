// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the parts of bench_iova share: who is measured, what is replaced when, and how threads run
// side by side. The rows are in iova_hot.cpp, iova_mixed.cpp, iova_space.cpp and iova_cliffs.cpp.
#pragma once

#include "moat/iova/allocator.hpp"
#include "moat/sync/real.hpp"

#include "harness.hpp"
#include "linux_way.hpp"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mimalloc.h>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace moat::bench {

void hot_pairs(Suite& suite);
void larger_pair(Suite& suite);
void ring(Suite& suite);
void cost_of_the_guard(Suite& suite);
void mixed(Suite& suite);
void remote_release(Suite& suite);
void search_steps(Suite& suite);
void payload_share(Suite& suite);
void special_pairs(Suite& suite);
void late_reuse(Suite& suite);
void full_apertures(Suite& suite);
void small_apertures(Suite& suite);
void two_threads(Suite& suite);

using namespace literals;
using iova::Config;
using iova::Guard;
using Allocator = iova::Allocator<RealSync>;

inline Allocator::Owner make(ByteCount aperture, const Guard& guard = {}) {
    const IovaRange range(Iova(0), aperture);
    auto made = Allocator::create(Config{.aperture = {&range, 1}, .guard = guard});
    MOAT_CHECK(made.has_value(), "an allocator for a benchmark");
    return std::move(*made);
}

constexpr ByteCount pages(std::uint64_t count) {
    return ByteCount(count << 12);
}

/// An error ends the program.
[[gnu::always_inline]] inline void give_back(Allocator& allocator, Iova at, ByteCount size) {
    if (!allocator.release(at, size).has_value()) [[unlikely]]
        std::abort();
}

/// Keeps the optimiser from knowing a value.
template <class T>
T opaque(T value) {
    asm volatile("" : "+r"(value) : : "memory");
    return value;
}

inline void mimalloc_pair_loop(std::uint64_t count) {
    for (; count != 0; --count)
        mi_free(opaque(mi_malloc(opaque(std::size_t{64}))));
}

inline double nanoseconds(const auto& run, std::uint64_t count) {
    const auto start = std::chrono::steady_clock::now();
    run(count);
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start)
               .count() /
           static_cast<double>(count);
}

/// What is replaced where: tables drawn once, so that no side pays for random numbers.
struct Script {
    static constexpr std::size_t slots = 4096;
    static constexpr std::size_t length = 1 << 16;

    explicit Script(unsigned seed, const auto& draw_size) : slot(length), size(length) {
        std::mt19937 random(seed);
        for (std::size_t i = 0; i != length; ++i) {
            slot[i] = static_cast<std::uint16_t>(random() % slots);
            size[i] = static_cast<std::uint16_t>(draw_size(random));
        }
    }

    std::vector<std::uint16_t> slot;
    std::vector<std::uint16_t> size;
};

inline std::uint64_t small_size(std::mt19937& random) {
    return 1 + random() % 16;
}

inline std::uint64_t mixed_size(std::mt19937& random) {
    const unsigned kind = random() % 100;
    if (kind < 60)
        return 1;
    if (kind < 85)
        return 2 + random() % 15;
    if (kind < 96)
        return 17 + random() % 48;
    return kind < 99 ? 128 : 512;
}

/// 4096 live ranges of one thread, each replaced in turn.
template <class Subject>
class Replacer {
  public:
    Replacer(const Subject& subject, const Script& script) : subject_(subject), script_(script) {
        for (auto& each : held_) {
            each.pages = script_.size[position_++ % Script::length];
            each.at = subject_.allocate(each.pages);
        }
    }

    ~Replacer() {
        for (const auto& each : held_)
            subject_.release(each.at, each.pages);
    }

    void in_order(std::uint64_t count) {
        replace(count, [](std::uint64_t position) { return position % Script::slots; });
    }

    void at_random(std::uint64_t count) {
        replace(count, [slots = script_.slot.data()](std::uint64_t position) {
            return slots[position % Script::length];
        });
    }

  private:
    struct Held {
        std::uint64_t at = 0;
        std::uint64_t pages = 0;
    };

    /// What the loop itself needs stays in registers, so that the subject is what is measured.
    template <class SlotAt>
    [[gnu::always_inline]] void replace(std::uint64_t count, const SlotAt& slot_at) {
        Subject subject = subject_;
        std::uint64_t position = position_;
        Held* const held = held_.data();
        const std::uint16_t* const sizes = script_.size.data();
        for (; count != 0; --count) {
            Held& own = held[slot_at(position)];
            subject.release(own.at, own.pages);
            own.pages = sizes[position++ % Script::length];
            own.at = subject.allocate(own.pages);
        }
        position_ = position;
    }

    Subject subject_;
    const Script& script_;
    std::uint64_t position_ = 0;
    /// Not on the stack, whose place is drawn anew for each run.
    std::vector<Held> held_{Script::slots};
};

struct MoatSubject {
    Allocator& allocator;

    [[gnu::always_inline]] std::uint64_t allocate(std::uint64_t count) {
        const auto got = allocator.allocate({.size = pages(count)});
        if (!got) [[unlikely]]
            std::abort();
        return got->value();
    }

    [[gnu::always_inline]] void release(std::uint64_t at, std::uint64_t count) {
        give_back(allocator, Iova(at), pages(count));
    }
};

struct MimallocSubject {
    static std::uint64_t allocate(std::uint64_t count) {
        keep(count);
        return reinterpret_cast<std::uint64_t>(mi_malloc(64));
    }

    static void release(std::uint64_t at, std::uint64_t count) {
        keep(count);
        mi_free(reinterpret_cast<void*>(at));
    }
};

/// With one page of guard, as the origin of guard pages would have it.
struct LinuxSubject {
    LinuxWay& way;
    LinuxWay::ThreadCaches& caches;

    std::uint64_t allocate(std::uint64_t count) {
        const auto got = way.allocate(caches, count + 1);
        if (!got) [[unlikely]]
            std::abort();
        return *got;
    }

    void release(std::uint64_t at, std::uint64_t count) { way.release(caches, at, count + 1); }
};

inline constexpr std::uint64_t pages_32_bits = std::uint64_t{1} << 20;

/// Rounds of `count` operations that `threads` threads, pinned, do side by side; `make_work` gives
/// each what it does. Return: nanoseconds an operation of each thread, the lower quartile of the
/// rounds, since on a busy machine most others contain somebody else's time.
template <class MakeWork>
double rounds(unsigned threads, const MakeWork& make_work, std::uint64_t count) {
    constexpr int number = 21;
    std::barrier together(static_cast<std::ptrdiff_t>(threads));
    std::vector<std::vector<double>> taken(threads);
    {
        std::vector<std::jthread> running;
        for (unsigned thread = 0; thread != threads; ++thread)
            running.emplace_back([&, thread] {
                pin_to_core(thread);
                const auto work = make_work(thread);
                for (int i = 0; i != number + 4; ++i) {
                    together.arrive_and_wait();
                    taken[thread].push_back(nanoseconds(work, count));
                }
                together.arrive_and_wait();
            });
    }
    std::vector<double> slower(number);
    for (int i = 0; i != number; ++i)
        for (const auto& own : taken)
            slower[i] = std::max(slower[i], own[i + 4]);
    std::ranges::sort(slower);
    return slower[number / 4];
}

} // namespace moat::bench
