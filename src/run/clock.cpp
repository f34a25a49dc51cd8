// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/clock.hpp"

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace moat::run {

namespace {

constexpr std::uint64_t adjusted_every_ns = 1'000'000;
constexpr std::uint64_t valid_ns = 10 * adjusted_every_ns;
/// Of the counter's frequencies, in ticks a nanosecond.
constexpr std::uint64_t most_rate = 16;
/// Between two readings of the counter around one of the clock: without an interruption.
constexpr std::uint64_t most_ticks_around = 400;

[[nodiscard]] bool counter_is_constant() {
#ifdef __x86_64__
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    constexpr unsigned power_management = 0x8000'0007;
    constexpr unsigned invariant = 1U << 8;
    return __get_cpuid(power_management, &a, &b, &c, &d) != 0 && (d & invariant) != 0;
#else
    return false;
#endif
}

} // namespace

void FastClock::adjust() {
    static const bool constant = counter_is_constant();
    const std::uint64_t before = counter();
    if (!constant || before - mark_.ticks < valid_ticks_ / (valid_ns / adjusted_every_ns))
        return;
    const Mark mark = {.ticks = before, .ns = now_ns()};
    if (counter() - before > most_ticks_around)
        return;
    const std::uint64_t ns = mark.ns - mark_.ns;
    const std::uint64_t ticks = mark.ticks - mark_.ticks;
    const bool is_first = mark_.ns == 0;
    if (!is_first && ns < adjusted_every_ns / 2)
        return;
    mark_ = mark;
    valid_ticks_ = 0;
    if (is_first || ticks == 0 || ns > adjusted_every_ns * 1000 || ticks / most_rate > ns)
        return;
    const double rate = static_cast<double>(ns) / static_cast<double>(ticks);
    rate_ = static_cast<std::uint64_t>(rate * static_cast<double>(std::uint64_t{1} << rate_bits));
    valid_ticks_ = static_cast<std::uint64_t>(static_cast<double>(valid_ns) / rate);
}

} // namespace moat::run
