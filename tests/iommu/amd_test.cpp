// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of AMD IOMMUs against the test's registers: its commands, its tables, its events, and
// its errors for units with few features, units that do nothing, and missing units.
#include "moat/core/text.hpp"

#include "fake_amd.hpp"
#include "unit_memory.hpp"

#include <algorithm>
#include <cstddef>
#include <gtest/gtest.h>
#include <memory>
#include <utility>
#include <vector>

namespace moat::tests {
namespace {

using namespace moat::literals;
namespace amd = iommu::amd;
using AmdUnit = amd::Unit<FakeAmd, FakeAmd::Pool, RealSync>;
using AmdDomain = amd::Domain<AmdUnit>;
using AmdCommands = std::vector<amd::Command>;
using fault::Access;

static_assert(iommu::DeferringDomain<AmdDomain>);

/// 256 functions and events, so that both fit into the test's memory.
constexpr amd::UnitOptions small_amd = {.device_bits = 8, .events_lg2 = 8, .caches_absent = false};

constexpr amd::UnitOptions caching_amd = {
    .device_bits = 8, .events_lg2 = 8, .caches_absent = false, .serves_device_tlbs = true};

constexpr std::uint64_t everything = 0x7ffffffffffff000 | 3; ///< a block, and its tables
constexpr amd::DeviceEntry blocked = {3, 0};

class AmdTest : public ::testing::Test {
  protected:
    void open(amd::UnitOptions options = small_amd) {
        auto opened = AmdUnit::open(registers, memory.pool, options);
        ASSERT_TRUE(opened) << opened.error();
        unit = std::move(*opened);
        auto created = AmdDomain::create(*unit);
        ASSERT_TRUE(created) << created.error();
        domain = std::move(*created);
        registers.commands.clear();
        registers.waits = 0;
    }

    void map(std::uint64_t start, ByteCount size) {
        ASSERT_TRUE(domain->map(Iova(start), size, PhysicalAddress(start), read_write));
    }

    [[nodiscard]] const Word* words_at(unsigned register_offset) {
        return memory.pool.words(
            PhysicalAddress(registers.values[register_offset] & field_mask(51, 12)));
    }

    [[nodiscard]] amd::DeviceEntry device(std::uint16_t requester) {
        const Word* const words = words_at(amd::reg::device_table) + std::size_t{4} * requester;
        EXPECT_EQ(words[2] | words[3], 0U);
        return {words[0], words[1]};
    }

    [[nodiscard]] amd::Command of_domain(std::uint64_t operand) const {
        return {3ULL << 60 | std::uint64_t{domain->number()} << 32, operand};
    }

    UnitMemory memory;
    FakeAmd registers{memory.pool};
    std::unique_ptr<AmdUnit> unit;
    std::unique_ptr<AmdDomain> domain;
};

TEST_F(AmdTest, is_enabled_with_its_caches_empty_and_disabled_at_the_end) {
    registers.values[amd::reg::exclusion] = 3; // of a previous owner
    {
        const auto opened = AmdUnit::open(registers, memory.pool, small_amd);
        ASSERT_TRUE(opened);
        EXPECT_EQ(registers.values[amd::reg::control], 0x1405U);
        EXPECT_EQ(registers.values[amd::reg::exclusion], 0U);
        EXPECT_EQ(registers.commands, (AmdCommands{{8ULL << 60, 0}}));
        EXPECT_EQ(registers.values[amd::reg::device_table] & low_bits(12), 1U) << "2 pages";
        EXPECT_EQ(registers.values[amd::reg::command_buffer] >> 56, 8U);
        EXPECT_EQ(registers.values[amd::reg::event_log] >> 56, 8U);
    }
    EXPECT_EQ(registers.values[amd::reg::control], 0U);
    EXPECT_EQ(memory.pool.units_in_use(), 0U);
}

/// An entry of zeros would let the function reach all of memory.
TEST_F(AmdTest, unattached_functions_are_blocked) {
    open();
    for (unsigned requester = 0; requester != 256; ++requester)
        ASSERT_EQ(device(static_cast<std::uint16_t>(requester)), blocked) << requester;
}

TEST_F(AmdTest, device_tlbs_of_a_domain_follow_its_iotlb) {
    open(caching_amd);
    ASSERT_TRUE(domain->attach(0x23, iommu::DeviceTlb{.queue_depth = 5}));
    ASSERT_TRUE(domain->attach(0x24, iommu::DeviceTlb{}));
    ASSERT_TRUE(domain->attach(0x25));
    EXPECT_EQ(device(0x23)[1], domain->number() | bit(32)) << "translation requests are allowed";
    EXPECT_EQ(device(0x25)[1], domain->number());
    map(0x8000, 16_KiB);
    registers.commands.clear();
    registers.waits = 0;
    ASSERT_TRUE(domain->unmap(Iova(0x8000), 16_KiB));
    const std::uint64_t first = 4ULL << 60 | 0x23ULL << 32 | 5U << 24 | 0x23;
    const std::uint64_t second = 4ULL << 60 | 0x24ULL << 32 | 32U << 24 | 0x24;
    EXPECT_EQ(registers.commands,
              (AmdCommands{of_domain(0x9001), {first, 0x9001}, {second, 0x9001}}));
    EXPECT_EQ(registers.waits, 3U) << "each is sent when the one before is complete";

    ASSERT_TRUE(unit->detach(0x24));
    registers.commands.clear();
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(registers.commands,
              (AmdCommands{of_domain(everything), {first, 0x7fff'ffff'ffff'f001}}));
    registers.commands.clear();
    ASSERT_TRUE(unit->detach(0x23));
    EXPECT_EQ(registers.commands.back(), (amd::Command{first, 0x7fff'ffff'ffff'f001}));
    ASSERT_TRUE(unit->detach(0x25));
}

TEST_F(AmdTest, device_tlb_needs_a_unit_that_serves_it) {
    open();
    EXPECT_EQ(domain->attach(0x23, iommu::DeviceTlb{}).error().code(), ErrorCode::unsupported);
    EXPECT_EQ(device(0x23), blocked);
}

TEST_F(AmdTest, attached_function_has_an_entry) {
    open();
    ASSERT_TRUE(domain->attach(0x23));
    EXPECT_EQ(registers.commands, (AmdCommands{{2ULL << 60 | 0x23, 0}}));
    EXPECT_EQ(device(0x23)[0],
              3 | 4U << 9 | bit(61) | bit(62) | domain->table().root().table.value());
    EXPECT_EQ(device(0x23)[1], domain->number());
    EXPECT_EQ(domain->attach(0x23).error().code(), ErrorCode::busy);
    EXPECT_EQ(domain->attach(0x123).error().code(), ErrorCode::out_of_range);
    registers.commands.clear();
    ASSERT_TRUE(unit->detach(0x23));
    EXPECT_EQ(device(0x23), blocked);
    EXPECT_EQ(registers.commands, (AmdCommands{{2ULL << 60 | 0x23, 0}, of_domain(everything)}));
    EXPECT_EQ(unit->detach(0x23).error().code(), ErrorCode::not_found);
    EXPECT_EQ(unit->detach(0xff00).error().code(), ErrorCode::not_found);
}

TEST_F(AmdTest, unmap_invalidates_the_smallest_block_around_it) {
    open();
    map(0x5000, 4_KiB);
    EXPECT_TRUE(registers.commands.empty()) << "absent entries are not cached";
    ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB));
    EXPECT_EQ(registers.commands, (AmdCommands{of_domain(0x5000)}));
    EXPECT_EQ(registers.waits, 1U);
    const auto block_of = [&](std::uint64_t first, std::uint64_t last) {
        registers.commands.clear();
        const InvalidationRequest<Iova> request = {Iova(first), Iova(last)};
        EXPECT_TRUE(unit->invalidate(domain->number(), {&request, 1}));
        return registers.commands;
    };
    EXPECT_EQ(block_of(0x4000, 0x5fff), (AmdCommands{of_domain(0x4000 | 1)})) << "8K";
    EXPECT_EQ(block_of(0x4000, 0x7fff), (AmdCommands{of_domain(0x5000 | 1)})) << "16K";
    EXPECT_EQ(block_of(0x5000, 0x6fff), (AmdCommands{of_domain(0x5000 | 1)})) << "in 16K";
    EXPECT_EQ(block_of(0x40000000, 0x401fffff), (AmdCommands{of_domain(0x400ff000 | 1)})) << "2M";
    EXPECT_EQ(block_of(0, ~0ULL), (AmdCommands{of_domain(everything & ~2ULL)}));
    EXPECT_EQ(block_of(0x2000, 0x1000), (AmdCommands{of_domain(everything)})) << "no range";
}

TEST_F(AmdTest, many_requests_invalidate_the_domain) {
    open();
    const std::vector<InvalidationRequest<Iova>> requests(17, {Iova(0x1000), Iova(0x1fff)});
    ASSERT_TRUE(unit->invalidate(domain->number(), std::span(requests).first(16)));
    EXPECT_EQ(registers.commands, AmdCommands(16, of_domain(0x1000)));
    EXPECT_EQ(registers.waits, 1U);
    registers.commands.clear();
    ASSERT_TRUE(unit->invalidate(domain->number(), requests));
    EXPECT_EQ(registers.commands, (AmdCommands{of_domain(everything)}));
}

TEST_F(AmdTest, removed_tables_are_forgotten_too) {
    open();
    for (std::uint64_t at = 0x200000; at != 0x400000; at += 4096)
        ASSERT_TRUE(domain->map(Iova(at), 4_KiB, PhysicalAddress(0x10000000 + 2 * at), read_write));
    ASSERT_TRUE(domain->unmap(Iova(0x200000), 2_MiB));
    EXPECT_EQ(registers.commands, (AmdCommands{of_domain(0x2ff000 | 3)}));
}

TEST_F(AmdTest, deferred_unmaps_wait_for_one_invalidation) {
    open();
    map(0x5000, 4_KiB);
    ASSERT_TRUE(domain->unmap_deferred(Iova(0x5000), 4_KiB));
    EXPECT_TRUE(registers.commands.empty());
    EXPECT_FALSE(domain->reader().translate(Iova(0x5000)));
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(registers.commands, (AmdCommands{of_domain(everything)}));
}

TEST_F(AmdTest, new_entries_are_invalidated_where_absent_ones_are_cached) {
    open({.device_bits = 8, .events_lg2 = 8});
    map(0x5000, 4_KiB);
    EXPECT_EQ(registers.commands, (AmdCommands{of_domain(0x5000)}));
}

TEST_F(AmdTest, limits_are_the_tables_and_the_special_addresses) {
    open();
    EXPECT_EQ(domain->map(Iova(0xfee00000), 4_KiB, PhysicalAddress(0), read_write).error().code(),
              ErrorCode::overlap);
    EXPECT_EQ(domain->map(Iova(0xfffffff000), 4_KiB, PhysicalAddress(0), read_write).error().code(),
              ErrorCode::overlap);
    EXPECT_TRUE(domain->map(Iova(bit(40)), 4_KiB, PhysicalAddress(0), Attributes::write));
    EXPECT_FALSE(has(domain->reader().translate(Iova(bit(40)))->attributes(), Attributes::read));
    EXPECT_EQ(domain->map(Iova(bit(48)), 4_KiB, PhysicalAddress(0), read_write).error().code(),
              ErrorCode::out_of_range);
    EXPECT_EQ(domain->map(Iova(0x7000), 4_KiB, PhysicalAddress(0), Attributes::none).error().code(),
              ErrorCode::unsupported);
    ASSERT_TRUE(domain->map(Iova(bit(42)), ByteCount(bit(40)), PhysicalAddress(0), read_write));
    EXPECT_EQ(domain->reader().translate(Iova(bit(42)))->leaf_lg2(), 38U) << "no leaf of 512G";
}

TEST_F(AmdTest, levels_are_those_of_the_unit) {
    open();
    EXPECT_TRUE((amd::Domain<AmdUnit, 3>::create(*unit)));
    const auto deep = amd::Domain<AmdUnit, 5>::create(*unit);
    ASSERT_TRUE(deep);
    EXPECT_EQ((*deep)->limits().aperture.size(), ByteCount(bit(57)));
    FakeAmd shallow(memory.pool, bit(6));
    const auto other = *AmdUnit::open(shallow, memory.pool, small_amd);
    EXPECT_EQ((amd::Domain<AmdUnit, 5>::create(*other).error().code()), ErrorCode::unsupported);
}

TEST_F(AmdTest, unsuitable_units_are_refused_by_name) {
    for (const std::uint64_t features : {0ULL, ~0ULL, 1ULL << 10}) {
        FakeAmd other(memory.pool, features);
        const auto opened = AmdUnit::open(other, memory.pool, small_amd);
        ASSERT_FALSE(opened) << features;
        EXPECT_EQ(opened.error().code(), ErrorCode::unsupported);
    }
}

TEST_F(AmdTest, unit_that_does_nothing_is_an_error_in_bounded_time) {
    open();
    map(0x5000, 8_KiB);
    registers.stuck = true;
    EXPECT_EQ(domain->unmap(Iova(0x5000), 4_KiB).error().code(), ErrorCode::io);
    registers.stuck = false;
    EXPECT_EQ(domain->invalidate_all().error().code(), ErrorCode::io) << "the unit has failed";
    const std::uint64_t used = memory.pool.units_in_use();
    domain.reset();
    EXPECT_EQ(memory.pool.units_in_use(), used) << "the unit may still walk the tables";
    unit.reset();
    EXPECT_EQ(memory.pool.units_in_use(), 0U);
    registers.stuck = true;
    EXPECT_FALSE(AmdUnit::open(registers, memory.pool, small_amd));
}

TEST_F(AmdTest, rejected_command_is_an_error) {
    open();
    map(0x5000, 4_KiB);
    registers.rejects = true;
    const auto unmapped = domain->unmap(Iova(0x5000), 4_KiB);
    ASSERT_FALSE(unmapped);
    EXPECT_EQ(unmapped.error().code(), ErrorCode::io);
    EXPECT_EQ(unmapped.error().sentence(), "the IOMMU stopped at a command");
}

TEST_F(AmdTest, buffer_goes_round) {
    open();
    for (unsigned i = 0; i != 1000; ++i) {
        map(0x5000, 4_KiB);
        ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB)) << i;
    }
    EXPECT_EQ(registers.waits, 1000U);
    EXPECT_EQ(registers.commands, AmdCommands(1000, of_domain(0x5000)));
}

TEST_F(AmdTest, completed_command_needs_no_register) {
    open();
    registers.reads = 0;
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(registers.reads, 0U);
}

constexpr std::uint64_t page_fault = 2ULL << 60;
constexpr std::uint64_t of_write = bit(48 + 5);
constexpr std::uint64_t of_present = bit(48 + 4);

TEST_F(AmdTest, events_are_taken_in_order_and_an_overflow_is_counted_once) {
    open();
    std::vector<fault::Record> taken;
    auto keep = [&](const fault::Record& each) { taken.push_back(each); };
    for (unsigned round = 0; round != 5; ++round) {
        for (std::uint64_t i = 0; i != 300; ++i)
            registers.record(
                {page_fault | of_present | (i % 2 == 0 ? of_write : 0) | 7ULL << 32 | 0x23,
                 0x5000 + 4 * i});
        EXPECT_EQ(unit->take_faults(keep), 1U) << "300 do not fit into 255";
        ASSERT_EQ(taken.size(), 255U) << round;
        for (std::uint64_t i = 0; i != 255; ++i) {
            EXPECT_EQ(taken[i].where, IovaRange(Iova(0x5000 + 4 * i), 1_B));
            EXPECT_EQ(taken[i].access, i % 2 == 0 ? Access::write : Access::read);
        }
        taken.clear();
        EXPECT_EQ(unit->take_faults(keep), 0U);
        EXPECT_TRUE(taken.empty());
    }
}

TEST_F(AmdTest, full_log_without_an_overflow_is_no_loss) {
    open();
    unsigned count = 0;
    auto each = [&](const fault::Record&) { ++count; };
    for (unsigned i = 0; i != 255; ++i)
        registers.record({page_fault, 0x5000});
    EXPECT_EQ(unit->take_faults(each), 0U);
    EXPECT_EQ(count, 255U);
}

TEST_F(AmdTest, event_that_arrives_after_the_tail_is_awaited) {
    open();
    std::vector<fault::Record> taken;
    auto keep = [&](const fault::Record& each) { taken.push_back(each); };
    registers.record_late({page_fault | 7ULL << 32, 0x5000});
    EXPECT_EQ(unit->take_faults(keep), 0U);
    ASSERT_EQ(taken.size(), 1U);
    EXPECT_EQ(taken[0].where.start(), Iova(0x5000));
    taken.clear();
    for (unsigned i = 0; i != 255; ++i)
        registers.record({page_fault | 7ULL << 32, 0x6000});
    EXPECT_EQ(unit->take_faults(keep), 0U);
    EXPECT_EQ(taken.size(), 255U);
    std::uint64_t& tail = registers.values[amd::reg::event_tail];
    tail = (tail + 16 * 16) % 4096; // before the events of these entries
    EXPECT_EQ(unit->take_faults(keep), 0U);
    EXPECT_EQ(taken.size(), 255U) << "no event is taken twice";
}

/// Offsets and events are numbers from a device.
TEST_F(AmdTest, hostile_log_ends_and_stays_inside) {
    open();
    auto* const events = const_cast<Word*>(words_at(amd::reg::event_log));
    unsigned total = 0;
    for (std::uint64_t tail = 0; tail <= bit(19); tail += 16 * 37) {
        for (const std::uint64_t more : {0ULL, 8ULL, 1ULL << 19, 1ULL << 63}) {
            for (std::size_t i = 0; i != 512; ++i)
                events[i] = ~std::uint64_t{0} / (i % 16 + 1);
            registers.values[amd::reg::event_tail] = tail | more;
            unsigned count = 0;
            auto each = [&](const fault::Record&) { ++count; };
            EXPECT_LE(unit->take_faults(each), 1U);
            EXPECT_LE(count, 255U);
            total += count;
            EXPECT_LT(registers.values[amd::reg::event_head], 4096U);
        }
    }
    EXPECT_GT(total, 10000U);
    std::fill_n(events, 512, ~std::uint64_t{0} >> 1);
    registers.values[amd::reg::event_tail] = ~0ULL;
    auto never = [](const fault::Record&) { ADD_FAILURE() << "a unit that is gone"; };
    EXPECT_EQ(unit->take_faults(never), 0U);
}

/// Registers are numbers from a device: it is refused, or driven within its limits.
TEST(AmdHostile, any_features_are_driven_or_refused) {
    unsigned opened_units = 0;
    std::uint64_t random = 1;
    for (unsigned round = 0; round != 1000; ++round) {
        random = random * 6364136223846793005U + 1442695040888963407U;
        UnitMemory memory;
        FakeAmd registers(memory.pool, random >> 16);
        auto unit = AmdUnit::open(registers, memory.pool, small_amd);
        if (!unit) {
            EXPECT_EQ(unit.error().code(), ErrorCode::unsupported);
            continue;
        }
        ++opened_units;
        auto domain = *AmdDomain::create(**unit);
        EXPECT_TRUE(domain->attach(1));
        EXPECT_TRUE(domain->map(Iova(0x5000), 128_KiB, PhysicalAddress(0), read_write));
        EXPECT_TRUE(domain->unmap(Iova(0x5000), 128_KiB));
        EXPECT_TRUE((*unit)->detach(1));
    }
    EXPECT_GT(opened_units, 100U);
}

TEST(AmdEvent, reads_every_code) {
    using enum fault::Reason;
    const std::vector<std::pair<std::uint64_t, fault::Reason>> expected = {
        {0, unknown},         {1, malformed_table}, {3, table_access}, {4, table_access},
        {5, malformed_table}, {6, hardware},        {7, invalidation}, {8, bad_request},
        {9, unknown},         {15, unknown}};
    for (const auto& [code, reason] : expected) {
        const auto record = amd::decode({code << 60 | 0x23, 0x5000});
        EXPECT_EQ(record.reason, reason) << code;
        const bool has_source = code == 1 || code == 3 || code == 4 || code == 7 || code == 8;
        EXPECT_EQ(record.source, has_source ? fault::Source::requester(0x23) : fault::Source())
            << code;
        EXPECT_EQ(record.precision,
                  code == 1 || code == 8 ? fault::Precision::start : fault::Precision::none)
            << code;
    }
}

TEST(AmdEvent, page_fault_has_reason_access_and_domain) {
    using enum fault::Reason;
    const auto decoded = [](std::uint64_t flags, std::uint64_t domain = 7) {
        return amd::decode({page_fault | flags << 48 | domain << 32 | 0x23, ~std::uint64_t{0}});
    };
    const auto absent = decoded(bit(5));
    EXPECT_EQ(absent.reason, not_present);
    EXPECT_EQ(absent.access, Access::unknown) << "the write bit has no meaning then";
    EXPECT_EQ(absent.domain, 7U);
    EXPECT_EQ(absent.code, bit(5));
    EXPECT_EQ(absent.source, fault::Source::requester(0x23));
    EXPECT_EQ(absent.where.last(), Iova(~std::uint64_t{0}));
    EXPECT_EQ(decoded(bit(4) | bit(5) | bit(6)).reason, permission);
    EXPECT_EQ(decoded(bit(4) | bit(5) | bit(6)).access, Access::write);
    EXPECT_EQ(decoded(bit(4) | bit(6)).access, Access::read);
    EXPECT_EQ(decoded(bit(4) | bit(8)).access, Access::unknown) << "a request to translate";
    EXPECT_EQ(decoded(bit(7)).reason, malformed_table);
    EXPECT_EQ(decoded(bit(4) | bit(6), 0).reason, not_attached);
    EXPECT_EQ(decoded(bit(3) | bit(4)).reason, interrupt);
    EXPECT_EQ(decoded(bit(3) | bit(4)).precision, fault::Precision::none);
    EXPECT_EQ(decoded(bit(3) | bit(4)).access, Access::unknown);
    const auto tagged = amd::decode({page_fault | bit(48) | 0xbcdeULL << 32 | 0xaULL << 16, 0});
    EXPECT_EQ(tagged.pasid, 0xabcdeU);
    EXPECT_FALSE(tagged.domain);
    EXPECT_EQ(amd::decode({8ULL << 60 | 3ULL << 57, 0}).access, Access::write);
}

TEST(AmdMemoryTest, every_allocation_fails_once) {
    expect_every_allocation_fails_once<AmdDomain, FakeAmd>(small_amd);
}

} // namespace
} // namespace moat::tests
