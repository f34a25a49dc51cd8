// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FastClock beside the clock that it reads less often.
#include "run/clock.hpp"

#include <gtest/gtest.h>

namespace moat::run {

namespace {

/// Adjusts `clock` for `ns` nanoseconds, as the devices' thread does.
void adjust_for(FastClock& clock, std::uint64_t ns) {
    for (const std::uint64_t start = now_ns(); now_ns() - start < ns;)
        clock.adjust();
}

void expect_agreement(FastClock& clock) {
    constexpr std::uint64_t tolerance_ns = 20'000;
    const std::uint64_t before = now_ns();
    const std::uint64_t shown = clock.now();
    const std::uint64_t after = now_ns();
    EXPECT_GE(shown + tolerance_ns, before);
    EXPECT_LE(shown, after + tolerance_ns);
}

constexpr std::uint64_t millisecond = 1'000'000;

TEST(FastClock, agrees_with_the_clock_before_and_after_it_is_adjusted) {
    FastClock clock;
    expect_agreement(clock);
    adjust_for(clock, 5 * millisecond);
    for (int i = 0; i != 1000; ++i)
        expect_agreement(clock);
}

TEST(FastClock, agrees_with_the_clock_where_nothing_adjusts_it_any_more) {
    FastClock clock;
    adjust_for(clock, 3 * millisecond);
    for (const std::uint64_t start = now_ns(); now_ns() - start < 20 * millisecond;)
        expect_agreement(clock);
}

TEST(FastClock, never_goes_back) {
    FastClock clock;
    std::uint64_t latest = 0;
    for (const std::uint64_t start = now_ns(); now_ns() - start < 10 * millisecond;) {
        clock.adjust();
        const std::uint64_t shown = clock.now();
        EXPECT_GE(shown, latest);
        latest = shown;
    }
}

} // namespace

} // namespace moat::run
