// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_iova's rows of mixed sizes, of two threads, and of ranges that change threads, against
// Linux's way, which says first how it compares with the kernel's code.
#include "iova_rows.hpp"

#include <array>
#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace moat::bench {

namespace {

/// Linux's way stands for the kernel's code where it takes about as long for the mixed row, one
/// thread: 300 to 1200 ns, as that took 450 to 980. Machines differ, so the time is judged relative
/// to that of the simplest pair that reaches the tree, 1 page with 1 MiB of guard and 1 K live,
/// which took the kernel's code 64 ns on the same machine, when nothing disturbed it.
void calibrate(const std::function<void(std::uint64_t)>& theirs) {
    constexpr double kernels_tree_pair = 64;
    constexpr std::uint64_t guarded = 257;
    LinuxWay way(pages_32_bits);
    LinuxWay::ThreadCaches caches;
    for (int i = 0; i != 1000; ++i)
        (void)way.allocate(caches, guarded);
    std::vector<double> taken;
    std::vector<double> scaled;
    for (int i = 0; i != 9; ++i) {
        const double pair = nanoseconds(
            [&](std::uint64_t n) {
                for (; n != 0; --n)
                    way.release(caches, *way.allocate(caches, guarded), guarded);
            },
            100'000);
        taken.push_back(nanoseconds(theirs, 100'000));
        scaled.push_back(taken.back() / pair * kernels_tree_pair);
    }
    std::ranges::nth_element(taken, taken.begin() + 4);
    std::ranges::nth_element(scaled, scaled.begin() + 4);
    std::fprintf(stderr,
                 "calibration: Linux's way takes %.0f ns for the mixed row, one thread; %.0f ns at "
                 "the speed of the machine where the kernel's code took 450-980; %s\n",
                 taken[4], scaled[4],
                 scaled[4] >= 300 && scaled[4] <= 1200 ? "its rows count" : "ITS ROWS ARE VOID");
}

/// The middle one by value / against_value of samples whose sides were measured one after another.
std::pair<double, double> middle_ratio(std::vector<std::pair<double, double>> samples) {
    const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
    std::ranges::nth_element(samples, middle, {},
                             [](const auto& each) { return each.first / each.second; });
    return *middle;
}

constexpr int alternations = 9;

} // namespace

void mixed(Suite& suite) {
    const std::string name = "mixed 1..512 pages, 4096 live, guard 4K";
    if (!suite.wants(name) && !suite.wants(name + ", two threads, each"))
        return;
    const Script script(2, mixed_size);
    auto allocator = make(256_TiB, Guard{{}, 4_KiB});
    LinuxWay way(pages_32_bits);
    std::array<LinuxWay::ThreadCaches, 2> caches;
    {
        MoatSubject subject{*allocator};
        LinuxSubject linux_subject{way, caches[0]};
        Replacer ours(subject, script);
        Replacer theirs(linux_subject, script);
        ours.at_random(500'000);
        theirs.at_random(500'000);
        calibrate([&](std::uint64_t n) { theirs.at_random(n); });
        const Side subject_side{.run = [&](std::uint64_t n) { ours.at_random(n); }};
        const Side linux_side{.run = [&](std::uint64_t n) { theirs.at_random(n); }};
        suite.compare({.name = name,
                       .subject = subject_side,
                       .against = "Linux's way",
                       .other = linux_side,
                       .goal = 1.0 / 15});
    }
    if (!suite.wants(name + ", two threads"))
        return;
    const Script scripts[] = {Script(10, mixed_size), Script(11, mixed_size)};
    MoatSubject subjects[] = {{*allocator}, {*allocator}};
    LinuxSubject linux_subjects[] = {{way, caches[0]}, {way, caches[1]}};
    const auto replacing = [&](auto& of) {
        return [&](unsigned thread) {
            return [replacer = std::make_shared<Replacer<std::remove_reference_t<decltype(of[0])>>>(
                        of[thread], scripts[thread])](std::uint64_t count) {
                replacer->at_random(count);
            };
        };
    };
    std::vector<std::pair<double, double>> to_linux;
    std::vector<std::pair<double, double>> to_alone;
    for (int i = 0; i != alternations; ++i) {
        const double together = rounds(2, replacing(subjects), 100'000);
        to_alone.emplace_back(together, rounds(1, replacing(subjects), 100'000));
        to_linux.emplace_back(together, rounds(2, replacing(linux_subjects), 10'000));
    }
    const auto [together, theirs] = middle_ratio(to_linux);
    const auto [each, alone] = middle_ratio(to_alone);
    suite.report({.name = name + ", two threads",
                  .value = together,
                  .unit = "ns",
                  .against = "Linux's way, two threads",
                  .against_value = theirs,
                  .goal = 1.0 / 15});
    suite.report({.name = name + ", two threads, each",
                  .value = each,
                  .unit = "ns",
                  .against = "one thread alone",
                  .against_value = alone,
                  .goal = 1.5});
}

namespace {

/// A queue between two threads: one fills, the other empties, in batches of what is there.
class Handover {
  public:
    void put(std::uint64_t value) {
        const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
        while (tail - seen_head_ == slots_.size()) {
            seen_head_ = head_.load(std::memory_order_acquire);
            if (tail - seen_head_ == slots_.size())
                RealSync::pause();
        }
        slots_[tail % slots_.size()] = value;
        tail_.store(tail + 1, std::memory_order_release);
    }

    std::uint64_t get() {
        const std::uint64_t head = head_.load(std::memory_order_relaxed);
        while (head == seen_tail_) {
            seen_tail_ = tail_.load(std::memory_order_acquire);
            if (head == seen_tail_)
                RealSync::pause();
        }
        const std::uint64_t value = slots_[head % slots_.size()];
        head_.store(head + 1, std::memory_order_release);
        return value;
    }

  private:
    std::array<std::uint64_t, 256> slots_{};
    alignas(128) std::atomic<std::uint64_t> tail_{0};
    std::uint64_t seen_head_ = 0;
    alignas(128) std::atomic<std::uint64_t> head_{0};
    std::uint64_t seen_tail_ = 0;
};

/// Nanoseconds a range, allocated on one thread and released on another.
template <class Allocate, class Release>
double across(const Allocate& allocate, const Release& release_there) {
    Handover queue;
    return rounds(
        2,
        [&](unsigned thread) -> std::function<void(std::uint64_t)> {
            if (thread == 0)
                return [&](std::uint64_t count) {
                    for (; count != 0; --count)
                        queue.put(allocate());
                };
            return [&](std::uint64_t count) {
                for (; count != 0; --count)
                    release_there(queue.get());
            };
        },
        20'000);
}

} // namespace

/// Beside a pair on one thread; and what the queue between the threads takes by itself.
void remote_release_of_small_sizes(Suite& suite) {
    for (const std::uint64_t count : {1, 8, 16}) {
        const std::string name = "allocated here, released there, " + std::to_string(count) +
                                 (count == 1 ? " page" : " pages");
        if (!suite.wants(name))
            continue;
        auto allocator = make(128_TiB, Guard{{}, 4_KiB});
        MoatSubject subject{*allocator};
        std::vector<std::pair<double, double>> samples;
        std::vector<double> queue;
        for (int i = 0; i != alternations; ++i) {
            const double remote = across([&] { return subject.allocate(count); },
                                         [&](std::uint64_t at) { subject.release(at, count); });
            const auto local = [&](unsigned) {
                return [&](std::uint64_t n) {
                    for (; n != 0; --n)
                        subject.release(opaque(subject.allocate(count)), count);
                };
            };
            samples.emplace_back(remote, rounds(1, local, 20'000));
            std::uint64_t next = 0;
            queue.push_back(across([&] { return ++next; }, [](std::uint64_t at) { keep(at); }));
        }
        const auto [value, local] = middle_ratio(samples);
        suite.report({.name = name,
                      .value = value,
                      .unit = "ns",
                      .against = "a pair on one thread",
                      .against_value = local,
                      .goal = 2});
        std::ranges::nth_element(queue, queue.begin() + alternations / 2);
        suite.report({.name = name + ": floor",
                      .value = queue[alternations / 2],
                      .unit = "ns",
                      .against = "a pair on one thread",
                      .against_value = local});
    }
}

void remote_release(Suite& suite) {
    remote_release_of_small_sizes(suite);
    const std::string name = "allocated here, released there, 33 pages, guard 4K";
    if (!suite.wants(name))
        return;
    auto allocator = make(256_TiB, Guard{{}, 4_KiB});
    MoatSubject subject{*allocator};
    LinuxWay way(pages_32_bits);
    LinuxWay::ThreadCaches caches[2];
    LinuxSubject here{way, caches[0]};
    LinuxSubject there{way, caches[1]};
    for (int i = 0; i != 4096; ++i) // live beside what is measured
        (void)here.allocate(33);
    std::vector<std::pair<double, double>> samples;
    for (int i = 0; i != alternations; ++i) {
        const double own = across([&] { return subject.allocate(33); },
                                  [&](std::uint64_t at) { subject.release(at, 33); });
        samples.emplace_back(own, across([&] { return here.allocate(33); },
                                         [&](std::uint64_t at) { there.release(at, 33); }));
    }
    const auto [value, theirs] = middle_ratio(samples);
    suite.report({.name = name,
                  .value = value,
                  .unit = "ns",
                  .against = "Linux's way",
                  .against_value = theirs,
                  .goal = 1.0 / 8});
}

} // namespace moat::bench
