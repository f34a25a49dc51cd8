// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sampling: the share of overruns that it finds, no other reports, and the properties of level
// exact that a sampled mapping has. Random numbers follow from MOAT_SEED.
#include "moat/core/text.hpp"
#include "moat/fault/report.hpp"

#include "space_system.hpp"

#include <cmath>
#include <cstdlib>
#include <gtest/gtest.h>
#include <string>
#include <thread>
#include <vector>

namespace moat::tests {

namespace {

using namespace literals;
using namespace dma;

/// Of an odd number, modulo 2^64: each step doubles the bits that are right.
constexpr std::uint64_t inverse(std::uint64_t odd) {
    std::uint64_t found = odd;
    for (int right_bits = 3; right_bits < 64; right_bits *= 2)
        found *= 2 - odd * found;
    return found;
}

class Sampling : public testing::Test {
  protected:
    Sampling() { sample_random::seed(seed); }

    /// A buffer that begins and ends inside its page.
    [[nodiscard]] Memory small(std::size_t size = 128) {
        return Memory::own(buffer.bytes().subspan(256, size));
    }

    static unsigned seed_of_this_run() {
        const char* const given = std::getenv("MOAT_SEED");
        return given != nullptr ? std::stoul(given) : 1;
    }

    const unsigned seed = seed_of_this_run();
    const testing::ScopedTrace trace{__FILE__, __LINE__, "MOAT_SEED=" + std::to_string(seed)};
    Buffer buffer{4096};
};

TEST_F(Sampling, finds_one_overrun_in_n_within_three_sigma) {
    constexpr int overruns = slow ? 10'000 : 100'000;
    for (const std::uint32_t one_in : {10U, 100U, 1000U}) {
        System system({.sample = one_in});
        int found = 0;
        for (int i = 0; i != overruns; ++i) {
            const Iova iova = *system.space->map(small(), Direction::from_device, "packet");
            (void)system.write(iova.value() + 120, 9); // one byte too many
            ASSERT_TRUE(system.space->unmap(iova, 128_B, Direction::from_device));
            found += system.heard.faults.empty() && system.heard.errors.empty() ? 0 : 1;
            for (const fault::Diagnosis& each : system.heard.faults) {
                ASSERT_EQ(each.kind, fault::Kind::out_of_bounds_right);
                ASSERT_EQ(each.mapping->label, "packet");
                ASSERT_EQ(each.mapping->sampled_of, one_in);
            }
            for (const DriverError& each : system.heard.errors) {
                ASSERT_EQ(each.kind, DriverErrorKind::red_zone);
                ASSERT_EQ(each.range, IovaRange(Iova(each.mapping.range.last().value() + 1), 1_B));
            }
            system.heard.faults.clear();
            system.heard.errors.clear();
        }
        const double share = 1.0 / one_in;
        const double sigma = std::sqrt(overruns * share * (1 - share));
        EXPECT_NEAR(found, overruns * share, 3 * sigma) << "one in " << one_in;
    }
}

TEST_F(Sampling, reports_nothing_of_correct_operations) {
    constexpr int operations = slow ? 100'000 : 10'000'000;
    System system({.sample = 100});
    std::vector<std::byte> bytes(128);
    std::vector<Iova> live;
    for (int i = 0; i < operations; i += 4) {
        const Iova iova = *system.space->map(small(), Direction::bidirectional, "packet");
        ASSERT_TRUE(system.lane.write(iova, bytes).complete());
        ASSERT_TRUE(system.space->sync_for_cpu(iova, 0_B, 128_B));
        live.push_back(iova);
        if (live.size() == 64) {
            for (; !live.empty(); live.pop_back())
                ASSERT_TRUE(system.space->unmap(live.back(), 128_B, Direction::bidirectional));
        }
    }
    for (; !live.empty(); live.pop_back())
        ASSERT_TRUE(system.space->unmap(live.back(), 128_B, Direction::bidirectional));
    EXPECT_TRUE(system.heard.errors.empty()) << summary(system.heard.errors[0]);
    EXPECT_TRUE(system.heard.faults.empty());
}

TEST_F(Sampling, a_sampled_mapping_has_its_bytes_both_ways_and_lies_at_either_edge) {
    System system({.sample = 1});
    int at_the_left = 0;
    for (int i = 1; i != 101; ++i) {
        const Memory memory = small();
        const Iova iova = *system.space->map(memory, Direction::bidirectional, "both");
        at_the_left += iova.value() % 4096 == 0 ? 1 : 0;
        ASSERT_TRUE(system.write(iova.value() + 127, 1, i).complete());
        ASSERT_TRUE(system.space->sync_for_cpu(iova, 0_B, 128_B));
        ASSERT_EQ(memory.bytes[127], static_cast<std::byte>(i));
        ASSERT_TRUE(system.space->unmap(iova, 128_B, Direction::bidirectional));
    }
    EXPECT_GT(at_the_left, 20);
    EXPECT_LT(at_the_left, 80);
    EXPECT_TRUE(system.heard.errors.empty());
}

TEST_F(Sampling, a_late_access_to_a_sampled_mapping_names_it_long_after) {
    System system({.sample = 1});
    const Iova late = *system.space->map(small(), Direction::from_device, "late");
    ASSERT_TRUE(system.space->unmap(late, 128_B, Direction::from_device));
    for (int i = 0; i != 500; ++i) {
        const Iova iova = *system.space->map(small(), Direction::from_device, "other");
        ASSERT_NE(iova, late);
        ASSERT_TRUE(system.space->unmap(iova, 128_B, Direction::from_device));
    }
    (void)system.write(late.value(), 1);
    ASSERT_EQ(system.heard.faults.size(), 1U);
    EXPECT_EQ(system.heard.faults[0].kind, fault::Kind::use_after_unmap);
    EXPECT_EQ(system.heard.faults[0].past->mapping.label, "late");
    EXPECT_NE(fault::text_report(system.heard.faults[0]).find("one mapping in 1 "),
              std::string::npos);
}

TEST_F(Sampling, a_fault_beside_a_mapping_that_is_not_sampled_is_not_blamed_on_another) {
    System system({.sample = 1'000'000});
    const Iova plain = *system.space->map(small(), Direction::from_device, "plain");
    sample_random::state = inverse(sample_random::multiplier); // the next number is 1
    const Iova sampled = *system.space->map(small(), Direction::from_device, "sampled");
    (void)system.write((plain.value() & ~std::uint64_t{4095}) + 4090, 16);
    ASSERT_EQ(system.heard.faults.size(), 1U);
    EXPECT_FALSE(system.heard.faults[0].mapping) << fault::summary(system.heard.faults[0]);
    (void)system.write((sampled.value() & ~std::uint64_t{4095}) + 4096, 16);
    ASSERT_EQ(system.heard.faults.size(), 2U);
    EXPECT_EQ(system.heard.faults[1].mapping->label, "sampled") << "in its guard";
    EXPECT_TRUE(system.space->unmap(plain, 128_B, Direction::from_device));
    EXPECT_TRUE(system.space->unmap(sampled, 128_B, Direction::from_device));
    EXPECT_TRUE(system.heard.errors.empty());
}

TEST_F(Sampling, a_full_space_takes_addresses_out_of_the_quarantine) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    const auto space = *SoftSpace::create(
        domain, {.options = {.sample = 1}, .dma_mask = Iova(0x3fffff), .pages = own_pages()});
    for (int i = 0; i != 5000; ++i) { // 512 places at most
        const auto iova = space->map(small(), Direction::from_device);
        ASSERT_TRUE(iova) << i;
        ASSERT_TRUE(space->unmap(*iova, 128_B, Direction::from_device));
    }
}

TEST_F(Sampling, threads_map_and_end_what_others_mapped) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    Heard heard;
    const auto space = *SoftSpace::create(
        domain, {.options = {.sample = 7}, .listener = heard.listener(), .pages = own_pages()});
    const auto map_many = [&](std::vector<Iova>& all) {
        for (int i = 0; i != 2000; ++i)
            all.push_back(*space->map(small(), Direction::to_device));
    };
    const auto unmap_all = [&](const std::vector<Iova>& all) {
        for (const Iova each : all)
            EXPECT_TRUE(space->unmap(each, 128_B, Direction::to_device));
    };
    std::vector<Iova> ones;
    std::vector<Iova> others;
    {
        const std::jthread one([&] { map_many(ones); });
        const std::jthread other([&] { map_many(others); });
    }
    {
        const std::jthread one([&] { unmap_all(others); });
        const std::jthread other([&] { unmap_all(ones); });
    }
    EXPECT_TRUE(heard.errors.empty());
}

TEST_F(Sampling, without_pages_is_refused) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    const auto made = SoftSpace::create(domain, {.options = {.sample = 100}});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code(), ErrorCode::unsupported);
}

} // namespace

} // namespace moat::tests
