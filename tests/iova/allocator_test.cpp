// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The allocator's promises, one behaviour a test. allocator_model_test.cpp runs random operations.
#include "moat/core/text.hpp"
#include "moat/iova/allocator.hpp"
#include "moat/sync/serial.hpp"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <vector>

namespace moat::iova {

namespace {

using namespace moat::literals;

using Subject = Allocator<SerialSync>;

constexpr IovaRange four_gib{Iova(0), 4_GiB};

Subject::Owner make(const Guard& guard, Config config = {}) {
    config.guard = guard;
    if (config.aperture.empty())
        config.aperture = {&four_gib, 1};
    auto made = Subject::create(config);
    EXPECT_TRUE(made.has_value()) << to_string(made.error());
    return made ? std::move(*made) : nullptr;
}

ErrorCode code(const auto& result) {
    EXPECT_FALSE(result.has_value());
    return result.has_value() ? ErrorCode::io : result.error().code();
}

constexpr Guard page_after{{}, 4_KiB};

// Guards.

TEST(IovaGuard, separates_consecutive_mappings) {
    const auto allocator = make(page_after);
    std::vector<std::uint64_t> starts;
    for (int i = 0; i != 100; ++i)
        starts.push_back(allocator->allocate({.size = 4_KiB})->value());
    std::ranges::sort(starts);
    for (std::size_t i = 1; i != starts.size(); ++i)
        EXPECT_GE(starts[i] - starts[i - 1], 0x2000U);
}

TEST(IovaGuard, is_rounded_up_to_whole_pages) {
    const auto allocator = make({{}, 1_B}, {.granule_lg2 = 16});
    EXPECT_EQ(allocator->allocate({.size = 1_B, .at = Iova(0x40000)})->value(), 0x40000U);
    EXPECT_EQ(code(allocator->allocate({.size = 1_B, .at = Iova(0x50000)})), ErrorCode::overlap);
    EXPECT_TRUE(allocator->allocate({.size = 1_B, .at = Iova(0x60000)}).has_value());
}

TEST(IovaGranule, rounds_every_size_up_and_knows_it_again) {
    const auto allocator = make({{}, 1_B}, {.granule_lg2 = 16});
    const Iova first = *allocator->allocate({.size = 5000_B});
    EXPECT_EQ(first.value() % 0x10000, 0U);
    EXPECT_EQ(code(allocator->release(first, 128_KiB)), ErrorCode::mismatch);
    EXPECT_EQ(code(allocator->release(Iova(first.value() + 0x1000), 4_KiB)), ErrorCode::not_found);
    EXPECT_TRUE(allocator->release(first, 64_KiB).has_value());
    EXPECT_EQ(code(allocator->release(first, 5000_B)), ErrorCode::not_found);
    EXPECT_EQ(*allocator->allocate({.size = 1_B}), first);
    EXPECT_TRUE(allocator->release(first, 5000_B).has_value());
}

TEST(IovaGuard, keeps_the_first_mapping_away_from_the_edges_of_the_aperture) {
    const std::array<IovaRange, 1> aperture = {IovaRange(Iova(0x10000), 16_KiB)};
    const auto allocator = make(page_after, {.aperture = aperture});
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB, .at = Iova(0x10000)})), ErrorCode::overlap);
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB, .at = Iova(0x13000)})),
              ErrorCode::out_of_range);
    EXPECT_EQ(allocator->allocate({.size = 8_KiB})->value(), 0x11000U);
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB})), ErrorCode::no_space);
}

TEST(IovaGuard, keeps_the_first_mapping_away_from_a_reserved_region) {
    const auto allocator = make({4_KiB, 8_KiB});
    ASSERT_TRUE(allocator->reserve(IovaRange(Iova(0x100000), 64_KiB)).has_value());
    // Above: the region's own two pages after it, and the mapping's page before.
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB, .at = Iova(0x112000)})), ErrorCode::overlap);
    EXPECT_TRUE(allocator->allocate({.size = 4_KiB, .at = Iova(0x113000)}).has_value());
    // Below: the mapping's two pages after it, and the region's page before.
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB, .at = Iova(0xfd000)})), ErrorCode::overlap);
    EXPECT_TRUE(allocator->allocate({.size = 4_KiB, .at = Iova(0xfc000)}).has_value());
}

TEST(IovaGuard, of_1_gib_is_an_error) {
    EXPECT_EQ(code(Subject::create({.aperture = {&four_gib, 1}, .guard = {{}, 1_GiB}})),
              ErrorCode::out_of_range);
}

// Placement.

TEST(IovaPlacement, is_natural_when_asked) {
    const auto allocator = make(page_after);
    for (const ByteCount size : {4_KiB, 12_KiB, 64_KiB, 100_KiB, 1_MiB}) {
        const auto got =
            allocator->allocate({.size = size, .placement = Congruence::natural(size)});
        ASSERT_TRUE(got.has_value());
        EXPECT_TRUE(is_aligned(got->value(), Congruence::natural(size).modulus_lg2));
    }
}

TEST(IovaPlacement, keeps_the_offset_in_a_large_page) {
    const auto allocator = make(page_after, {});
    const PhysicalAddress memory(0x12345'67000);
    const auto got =
        allocator->allocate({.size = 8_MiB, .placement = Congruence::with(memory, 21)});
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->value() % (2 << 20), memory.value() % (2 << 20));
}

TEST(IovaPlacement, stays_below_a_device_mask) {
    const std::array<IovaRange, 1> aperture = {IovaRange(Iova(0), 256_TiB)};
    const auto allocator = make(page_after, {.aperture = aperture});
    EXPECT_GE(allocator->allocate({.size = 4_KiB})->value(), std::uint64_t{1} << 32);
    for (int i = 0; i != 100; ++i) {
        const auto got = allocator->allocate({.size = 64_KiB, .last = Iova(0xffffff)});
        ASSERT_TRUE(got.has_value());
        EXPECT_LE(got->value() + 0xffff, 0xffffffU);
    }
}

TEST(IovaPlacement, spares_the_holes_of_the_aperture) {
    const std::array<IovaRange, 2> aperture = {IovaRange(Iova(0), 1_MiB),
                                               IovaRange(Iova(0x300000), 1_MiB)};
    const auto allocator = make({}, {.aperture = aperture});
    for (int i = 0; i != 512; ++i) {
        const auto got = allocator->allocate({.size = 4_KiB});
        ASSERT_TRUE(got.has_value());
        EXPECT_TRUE(aperture[0].contains(*got) || aperture[1].contains(*got));
    }
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB})), ErrorCode::no_space);
}

TEST(IovaPlacement, at_an_address_of_the_callers_choice) {
    const auto allocator = make({});
    ASSERT_EQ(allocator->allocate({.size = 8_KiB, .at = Iova(0)})->value(), 0U);
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB, .at = Iova(0x1000)})), ErrorCode::overlap);
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB, .at = Iova(0x2800)})), ErrorCode::unaligned);
    EXPECT_EQ(code(allocator->allocate({.size = 8_KiB, .at = Iova(0xfffff000)})),
              ErrorCode::out_of_range);
    EXPECT_TRUE(allocator->release(Iova(0), 8_KiB).has_value());
    // At once, although such sizes are cached.
    EXPECT_TRUE(allocator->allocate({.size = 4_KiB, .at = Iova(0x1000)}).has_value());
}

TEST(IovaPlacement, reaches_both_ends_of_57_bits) {
    const std::array<IovaRange, 1> aperture = {IovaRange(Iova(0), ByteCount(1ULL << 57))};
    const auto allocator = make({}, {.aperture = aperture});
    EXPECT_TRUE(allocator->allocate({.size = 4_KiB, .at = Iova(0)}).has_value());
    EXPECT_TRUE(allocator->allocate({.size = 4_KiB, .at = Iova((1ULL << 57) - 4096)}).has_value());
    const ByteCount rest((1ULL << 57) - 8192);
    EXPECT_EQ(allocator->allocate({.size = rest})->value(), 0x1000U);
    EXPECT_EQ(code(allocator->release(Iova(0x1000), ByteCount(rest.value() % (1ULL << 39)))),
              ErrorCode::mismatch)
        << "the size has more bits than one word of its record";
    EXPECT_EQ(code(allocator->release(Iova(0x2000), rest)), ErrorCode::not_found);
    EXPECT_EQ(code(allocator->allocate({.size = 1_B})), ErrorCode::no_space);
    EXPECT_TRUE(allocator->release(Iova(0x1000), rest).has_value());
    EXPECT_EQ(allocator->stats().largest_hole, rest);
    EXPECT_EQ(allocator->allocate({.size = 4_KiB, .at = Iova(0x2000)})->value(), 0x2000U);
    EXPECT_TRUE(allocator->release(Iova(0x2000), 4_KiB).has_value());
}

// Reserved regions.

TEST(IovaReserve, may_be_added_while_ranges_live) {
    const auto allocator = make({});
    const auto live = allocator->allocate({.size = 4_KiB});
    EXPECT_EQ(code(allocator->reserve(IovaRange(*live, 4_KiB))), ErrorCode::overlap);
    EXPECT_TRUE(allocator->reserve(IovaRange(Iova(0x80000000), 1_MiB)).has_value());
    EXPECT_TRUE(allocator->reserve(IovaRange(Iova(0x80080000), 1_MiB)).has_value()) << "again";
    EXPECT_EQ(code(allocator->allocate({.size = 4_KiB, .at = Iova(0x800ff000)})),
              ErrorCode::overlap);
    EXPECT_EQ(allocator->stats().free, 4_GiB - 4_KiB - ByteCount(0x180000));
}

TEST(IovaReserve, takes_back_what_is_only_cached) {
    const auto allocator = make({});
    const auto range = allocator->allocate({.size = 4_KiB});
    ASSERT_TRUE(allocator->release(*range, 4_KiB).has_value());
    EXPECT_TRUE(allocator->reserve(IovaRange(*range, 4_KiB)).has_value());
    EXPECT_EQ(allocator->stats().cached, 0_B);
}

// Wrong releases.

class IovaMisuse : public ::testing::Test {
  protected:
    void expect_refused(Iova iova, ByteCount size, ErrorCode expected) {
        const Stats before = allocator->stats();
        const auto result = allocator->release(iova, size);
        ASSERT_FALSE(result.has_value());
        EXPECT_EQ(result.error().code(), expected) << to_string(result.error());
        ASSERT_NE(result.error().find("iova"), nullptr);
        EXPECT_EQ(*result.error().find("iova"), iova.value());
        const Stats after = allocator->stats();
        EXPECT_EQ(before.live, after.live);
        EXPECT_EQ(before.cached, after.cached);
        EXPECT_EQ(before.free, after.free);
    }

    Subject::Owner allocator = make(page_after);
    Iova live = *allocator->allocate({.size = 8_KiB});
};

TEST_F(IovaMisuse, refuses_what_was_never_allocated) {
    expect_refused(Iova(0x40000000), 4_KiB, ErrorCode::not_found);
    expect_refused(Iova(0xffff'ffff'ffff'f000), 4_KiB, ErrorCode::not_found);
}

TEST_F(IovaMisuse, refuses_a_double_free) {
    ASSERT_TRUE(allocator->release(live, 8_KiB).has_value());
    expect_refused(live, 8_KiB, ErrorCode::not_found);
}

TEST_F(IovaMisuse, refuses_a_double_free_of_what_went_back_to_the_free_space) {
    const auto large = allocator->allocate({.size = 16_MiB});
    ASSERT_TRUE(allocator->release(*large, 16_MiB).has_value());
    expect_refused(*large, 16_MiB, ErrorCode::not_found);
}

TEST_F(IovaMisuse, refuses_another_size) {
    expect_refused(live, 4_KiB, ErrorCode::mismatch);
    expect_refused(live, 12_KiB, ErrorCode::mismatch);
    expect_refused(live, 16_MiB, ErrorCode::mismatch);
    EXPECT_EQ(*allocator->release(live, 4_KiB).error().find("allocated_size"), 8192U);
}

TEST_F(IovaMisuse, refuses_an_address_inside_a_range) {
    expect_refused(Iova(live.value() + 4096), 4_KiB, ErrorCode::not_found);
    expect_refused(Iova(live.value() + 1), 8_KiB, ErrorCode::not_found);
}

TEST_F(IovaMisuse, refuses_no_bytes) {
    EXPECT_EQ(code(allocator->release(live, 0_B)), ErrorCode::empty);
    EXPECT_EQ(code(allocator->allocate({.size = 0_B})), ErrorCode::empty);
}

// Exhaustion.

TEST(IovaExhaustion, names_size_limit_and_largest_hole) {
    const auto allocator = make({});
    const auto failed = allocator->allocate({.size = 5_GiB});
    ASSERT_EQ(code(failed), ErrorCode::no_space);
    EXPECT_EQ(*failed.error().find("size"), ByteCount(5_GiB).value());
    EXPECT_EQ(*failed.error().find("largest_hole"), ByteCount(4_GiB).value());
    EXPECT_EQ(code(allocator->allocate({.size = ByteCount(~0ULL)})), ErrorCode::no_space);
}

TEST(IovaExhaustion, brings_every_cached_range_back) {
    const auto allocator = make(page_after);
    std::vector<std::pair<Iova, ByteCount>> ranges;
    for (std::uint64_t pages = 1; pages != 100; ++pages)
        for (int i = 0; i != 20; ++i)
            ranges.emplace_back(*allocator->allocate({.size = ByteCount(pages << 12)}),
                                ByteCount(pages << 12));
    for (const auto& [start, size] : ranges)
        ASSERT_TRUE(allocator->release(start, size).has_value());
    EXPECT_NE(allocator->stats().cached, 0_B);
    EXPECT_TRUE(allocator->allocate({.size = 4_GiB - 8_KiB}).has_value());
    EXPECT_EQ(allocator->stats().cached, 0_B);
}

TEST(IovaExhaustion, costs_no_more_when_repeated) {
    const auto allocator = make({});
    std::vector<Iova> ranges;
    for (int i = 0; i != 20'000; ++i)
        ranges.push_back(*allocator->allocate({.size = 4_KiB}));
    EXPECT_EQ(code(allocator->allocate({.size = 8_GiB - 4_KiB})), ErrorCode::no_space);
    EXPECT_EQ(code(allocator->allocate({.size = 4_GiB - 4_KiB})), ErrorCode::no_space);
    const std::uint64_t before = allocator->stats().search_steps;
    EXPECT_EQ(code(allocator->allocate({.size = 4_GiB - 4_KiB})), ErrorCode::no_space);
    EXPECT_LE(allocator->stats().search_steps - before, 64U);
}

TEST(IovaExhaustion, caches_are_bounded_whatever_sizes_come) {
    const auto allocator = make(page_after);
    for (std::uint64_t round = 0; round != 4; ++round)
        for (std::uint64_t pages = 1; pages <= 512; ++pages) {
            std::vector<Iova> some;
            for (int i = 0; i != 40; ++i)
                if (const auto got = allocator->allocate({.size = ByteCount(pages << 12)}))
                    some.push_back(*got);
            for (const Iova each : some)
                ASSERT_TRUE(allocator->release(each, ByteCount(pages << 12)).has_value());
            ASSERT_LE(allocator->stats().cached, 256_MiB) << pages << " pages";
        }
}

// The special cache: sizes above 512 pages, and placements.

TEST(IovaSpecial, brings_an_exact_size_back) {
    const auto allocator = make(page_after);
    for (const ByteCount size : {ByteCount(513 << 12), 4_MiB, 16_MiB}) {
        const Iova first = *allocator->allocate({.size = size});
        ASSERT_TRUE(allocator->release(first, size).has_value());
        EXPECT_EQ(allocator->stats().private_to_threads, size);
        EXPECT_EQ(code(allocator->release(first, size)), ErrorCode::not_found);
        EXPECT_NE(*allocator->allocate({.size = size + 4_KiB}), first);
        const std::uint64_t steps = allocator->stats().search_steps;
        EXPECT_EQ(*allocator->allocate({.size = size}), first);
        EXPECT_EQ(allocator->stats().search_steps, steps) << "a search of the free space";
        EXPECT_EQ(code(allocator->release(first, size + 4_KiB)), ErrorCode::mismatch);
    }
}

TEST(IovaSpecial, serves_a_placement_only_where_it_lies) {
    const IovaRange wide(Iova(0), 1_TiB);
    const auto allocator = make(page_after, {.aperture = {&wide, 1}});
    const Request high{.size = 32_KiB, .placement = Congruence{21, 0x7000}};
    const Request aligned{.size = 32_KiB, .placement = Congruence::aligned(16)};
    const Request low{.size = 32_KiB, .last = Iova(0xffffffff)};
    const Iova first_high = *allocator->allocate(high);
    const Iova first_aligned = *allocator->allocate(aligned);
    const Iova first_low = *allocator->allocate(low);
    for (const Iova each : {first_low, first_aligned, first_high})
        ASSERT_TRUE(allocator->release(each, 32_KiB).has_value());
    const std::uint64_t steps = allocator->stats().search_steps;
    EXPECT_EQ(*allocator->allocate(aligned), first_aligned);
    EXPECT_EQ(*allocator->allocate(low), first_low);
    EXPECT_EQ(*allocator->allocate(high), first_high);
    EXPECT_EQ(allocator->stats().search_steps, steps) << "a search of the free space";
    EXPECT_LT(allocator->allocate(low)->value() + 0x7fff, 0x100000000U);
    EXPECT_TRUE(is_aligned(allocator->allocate(aligned)->value(), 16));
}

TEST(IovaSpecial, leaves_low_addresses_to_those_that_need_them) {
    const IovaRange wide(Iova(0), 1_TiB);
    const auto allocator = make(page_after, {.aperture = {&wide, 1}});
    const Iova low = *allocator->allocate({.size = 4_KiB, .last = Iova(0xffffffff)});
    ASSERT_TRUE(allocator->release(low, 4_KiB).has_value());
    for (int i = 0; i != 1000; ++i)
        EXPECT_GE(allocator->allocate({.size = 4_KiB})->value(), 0x100000000U);
}

TEST(IovaSpecial, matches_no_size_whose_bits_run_into_those_of_the_record) {
    const auto allocator = make(page_after);
    const Request aligned{.size = 32_KiB, .placement = Congruence::aligned(16)};
    // The hot path reads the record only once a release has cached its leaf.
    ASSERT_TRUE(allocator->release(*allocator->allocate(aligned), 32_KiB).has_value());
    const Iova start = *allocator->allocate(aligned);
    for (unsigned bit = 27; bit != 52; ++bit)
        EXPECT_EQ(code(allocator->release(start, ByteCount(((1ULL << bit) + 8) << 12))),
                  ErrorCode::mismatch);
    EXPECT_TRUE(allocator->release(start, 32_KiB).has_value());
}

TEST(IovaSpecial, gives_way_when_space_runs_out) {
    const auto allocator = make({});
    const Iova large = *allocator->allocate({.size = 64_MiB});
    ASSERT_TRUE(allocator->release(large, 64_MiB).has_value());
    EXPECT_EQ(allocator->stats().cached, 64_MiB);
    EXPECT_TRUE(allocator->allocate({.size = 4_GiB}).has_value());
    EXPECT_EQ(allocator->stats().cached, 0_B);
}

TEST(IovaSpecial, is_bounded_whatever_sizes_come) {
    const auto allocator = make(page_after);
    for (std::uint64_t pages = 513; pages <= 40'000; pages += 77) {
        const ByteCount size(pages << 12);
        for (int i = 0; i != 3; ++i) {
            const Iova start = *allocator->allocate({.size = size});
            ASSERT_TRUE(allocator->release(start, size).has_value());
        }
        ASSERT_LE(allocator->stats().cached, 128_MiB);
    }
}

TEST(IovaSpecial, caches_a_few_ranges_while_little_is_free) {
    const auto allocator = make({});
    ASSERT_TRUE(allocator->allocate({.size = 4_GiB - 256_MiB}).has_value());
    for (const ByteCount size : {4_KiB, 2_MiB + 4_KiB}) {
        const Iova start = *allocator->allocate({.size = size});
        ASSERT_TRUE(allocator->release(start, size).has_value());
        const std::uint64_t steps = allocator->stats().search_steps;
        EXPECT_EQ(*allocator->allocate({.size = size}), start);
        EXPECT_EQ(allocator->stats().search_steps, steps) << "a search of the free space";
        ASSERT_TRUE(allocator->release(start, size).has_value());
    }
    EXPECT_EQ(code(allocator->allocate({.size = 256_MiB + 4_KiB})), ErrorCode::no_space);
    EXPECT_TRUE(allocator->allocate({.size = 256_MiB}).has_value()) << "the caches were emptied";
}

// Quarantine.

TEST(IovaQuarantine, holds_ranges_back_in_order_and_within_its_budget) {
    const auto allocator = make(page_after, {.quarantine = {.bytes = 1_MiB, .entries = 4}});
    std::vector<Iova> released;
    for (int i = 0; i != 4; ++i) {
        released.push_back(*allocator->allocate({.size = 4_KiB}));
        ASSERT_TRUE(allocator->release(released.back(), 4_KiB).has_value());
        for (int j = 0; j <= i; ++j)
            ASSERT_EQ(code(allocator->release(released[j], 4_KiB)), ErrorCode::not_found);
    }
    EXPECT_EQ(allocator->stats().quarantined, 16_KiB);
    const Iova fifth = *allocator->allocate({.size = 4_KiB});
    EXPECT_EQ(std::ranges::find(released, fifth), released.end());
    ASSERT_TRUE(allocator->release(fifth, 4_KiB).has_value());
    EXPECT_EQ(allocator->stats().quarantined, 16_KiB);
    EXPECT_EQ(*allocator->allocate({.size = 4_KiB}), released.front()) << "the oldest came out";
}

TEST(IovaQuarantine, lets_go_by_bytes_and_by_time) {
    const auto allocator =
        make({}, {.quarantine = {.bytes = 16_KiB, .entries = 100, .nanoseconds = 1000}});
    const auto cycle = [&](ByteCount size) {
        ASSERT_TRUE(allocator->release(*allocator->allocate({.size = size}), size).has_value());
    };
    cycle(8_KiB);
    cycle(8_KiB);
    EXPECT_EQ(allocator->stats().quarantined, 16_KiB);
    cycle(4_KiB);
    EXPECT_EQ(allocator->stats().quarantined, 12_KiB);
    SerialSync::advance(2000);
    cycle(4_KiB);
    EXPECT_EQ(allocator->stats().quarantined, 4_KiB);
}

TEST(IovaQuarantine, gives_way_when_space_runs_out) {
    const auto allocator = make({}, {.quarantine = {.bytes = 8_GiB, .entries = 100}});
    const auto all = allocator->allocate({.size = 4_GiB});
    ASSERT_TRUE(allocator->release(*all, 4_GiB).has_value());
    EXPECT_EQ(allocator->stats().quarantined, 4_GiB);
    EXPECT_TRUE(allocator->allocate({.size = 4_GiB}).has_value());
}

// The flush queue.

class IovaFlushQueue : public ::testing::Test {
  protected:
    Subject::Owner allocator =
        make(page_after, {.invalidation = {&invalidate, this}, .flush_delay_nanoseconds = 1000});
    int invalidations = 0;

  private:
    static Result<void> invalidate(void* self) {
        ++static_cast<IovaFlushQueue*>(self)->invalidations;
        return {};
    }
};

TEST_F(IovaFlushQueue, reuses_nothing_before_its_invalidation) {
    const auto range = allocator->allocate({.size = 64_MiB, .at = Iova(0x1000000)});
    ASSERT_TRUE(allocator->release(*range, 64_MiB, When::after_invalidation).has_value());
    EXPECT_EQ(allocator->stats().queued, 64_MiB);
    EXPECT_EQ(invalidations, 0);
    EXPECT_TRUE(allocator->flush());
    EXPECT_EQ(invalidations, 1);
    EXPECT_EQ(allocator->stats().queued, 0_B);
    EXPECT_TRUE(allocator->allocate({.size = 64_MiB, .at = Iova(0x1000000)}).has_value());
}

TEST_F(IovaFlushQueue, invalidates_once_for_a_batch_and_never_for_none) {
    for (int i = 0; i != 100; ++i)
        ASSERT_TRUE(
            allocator
                ->release(*allocator->allocate({.size = 4_KiB}), 4_KiB, When::after_invalidation)
                .has_value());
    EXPECT_TRUE(allocator->flush());
    EXPECT_TRUE(allocator->flush());
    EXPECT_EQ(invalidations, 1);
}

TEST_F(IovaFlushQueue, flushes_itself_when_full_and_when_the_time_is_up) {
    for (int i = 0; i != 257; ++i)
        ASSERT_TRUE(
            allocator
                ->release(*allocator->allocate({.size = 4_KiB}), 4_KiB, When::after_invalidation)
                .has_value());
    EXPECT_EQ(invalidations, 1);
    EXPECT_EQ(allocator->stats().queued, 4_KiB);
    SerialSync::advance(1000);
    EXPECT_EQ(invalidations, 2);
    EXPECT_EQ(allocator->stats().queued, 0_B);
}

TEST_F(IovaFlushQueue, returns_large_ranges_to_the_cache_that_serves_them) {
    const auto queue_one = [&] {
        const auto range = allocator->allocate({.size = 4_MiB});
        ASSERT_TRUE(range.has_value());
        ASSERT_TRUE(allocator->release(*range, 4_MiB, When::after_invalidation).has_value());
    };
    for (int i = 0; i != 64; ++i)
        queue_one();
    const std::uint64_t steps = allocator->stats().search_steps;
    for (int i = 0; i != 1000; ++i)
        queue_one();
    EXPECT_EQ(allocator->stats().search_steps, steps) << "a search of the free space";
}

TEST_F(IovaFlushQueue, is_emptied_when_space_runs_out) {
    const auto range = allocator->allocate({.size = 3_GiB});
    ASSERT_TRUE(allocator->release(*range, 3_GiB, When::after_invalidation).has_value());
    EXPECT_TRUE(allocator->allocate({.size = 3_GiB}).has_value());
    EXPECT_EQ(invalidations, 1);
}

TEST_F(IovaFlushQueue, loses_nothing_at_the_end) {
    const auto range = allocator->allocate({.size = 4_KiB});
    ASSERT_TRUE(allocator->release(*range, 4_KiB, When::after_invalidation).has_value());
    allocator.reset();
    EXPECT_EQ(invalidations, 1);
}

TEST_F(IovaFlushQueue, catches_a_second_release_of_what_is_queued) {
    const auto range = allocator->allocate({.size = 4_KiB});
    ASSERT_TRUE(allocator->release(*range, 4_KiB, When::after_invalidation).has_value());
    EXPECT_EQ(code(allocator->release(*range, 4_KiB)), ErrorCode::not_found);
    EXPECT_EQ(code(allocator->release(*range, 4_KiB, When::after_invalidation)),
              ErrorCode::not_found);
}

TEST(IovaFlushQueueWithoutHook, is_an_error) {
    const auto allocator = make(page_after);
    const auto range = allocator->allocate({.size = 4_KiB});
    EXPECT_EQ(code(allocator->release(*range, 4_KiB, When::after_invalidation)),
              ErrorCode::unsupported);
    EXPECT_TRUE(allocator->release(*range, 4_KiB).has_value());
}

// Creation.

TEST(IovaCreate, refuses_what_no_iommu_has) {
    const auto create = [](const Config& config) { return code(Subject::create(config)); };
    EXPECT_EQ(create({.aperture = {&four_gib, 1}, .granule_lg2 = 13}), ErrorCode::unsupported);
    EXPECT_EQ(create({}), ErrorCode::empty);
    const std::array<IovaRange, 2> crossed = {IovaRange(Iova(0x2000), 8_KiB),
                                              IovaRange(Iova(0x3000), 8_KiB)};
    EXPECT_EQ(create({.aperture = crossed}), ErrorCode::overlap);
    const IovaRange far(Iova(1ULL << 57), 4_KiB);
    EXPECT_EQ(create({.aperture = {&far, 1}}), ErrorCode::out_of_range);
}

} // namespace

} // namespace moat::iova
