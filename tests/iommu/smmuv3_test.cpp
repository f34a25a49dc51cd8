// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of SMMUv3 units against the test's registers: its commands, its tables, its events,
// and its errors for units with few capabilities, units that do nothing, and missing units.
#include "moat/core/text.hpp"

#include "fake_smmuv3.hpp"
#include "unit_memory.hpp"

#include <array>
#include <cstddef>
#include <gtest/gtest.h>
#include <memory>
#include <utility>
#include <vector>

namespace moat::tests {
namespace {

using namespace moat::literals;
namespace smmu = iommu::smmuv3;
using Smmu = smmu::Unit<FakeSmmuv3, FakeSmmuv3::Pool, RealSync>;
using SmmuDomain = smmu::Domain<Smmu>;

static_assert(iommu::DeferringDomain<SmmuDomain>);

/// 256 streams and 16 events, so that both fit into the test's memory.
constexpr smmu::UnitOptions small_smmu = {.stream_bits = 8, .events_lg2 = 4};

class Smmuv3Test : public ::testing::Test {
  protected:
    void open(std::uint32_t idr3 = FakeSmmuv3::usual_idr3) {
        registers.values[smmu::reg::idr3] = idr3;
        auto opened = Smmu::open(registers, memory.pool, small_smmu);
        ASSERT_TRUE(opened) << opened.error();
        unit = std::move(*opened);
        auto created = SmmuDomain::create(*unit);
        ASSERT_TRUE(created) << created.error();
        domain = std::move(*created);
        registers.commands.clear();
        registers.syncs = 0;
    }

    [[nodiscard]] ErrorCode refusal(unsigned offset, std::uint32_t value) {
        FakeSmmuv3 other(memory.pool);
        other.values[offset] = value;
        const auto opened = Smmu::open(other, memory.pool, small_smmu);
        EXPECT_FALSE(opened);
        return opened ? ErrorCode::io : opened.error().code();
    }

    void map(std::uint64_t start, ByteCount size) {
        ASSERT_TRUE(domain->map(Iova(start), size, PhysicalAddress(start), read_write));
    }

    [[nodiscard]] const Word* words_at(unsigned register_offset) {
        return memory.pool.words(PhysicalAddress(registers.values[register_offset] & ~low_bits(5)));
    }

    [[nodiscard]] std::uint64_t asid() const { return std::uint64_t{domain->number()} << 48; }

    UnitMemory memory;
    FakeSmmuv3 registers{memory.pool};
    std::unique_ptr<Smmu> unit;
    std::unique_ptr<SmmuDomain> domain;
};

using SmmuCommands = std::vector<smmu::Command>;

TEST_F(Smmuv3Test, is_enabled_with_its_caches_empty_and_disabled_at_the_end) {
    {
        const auto opened = Smmu::open(registers, memory.pool, small_smmu);
        ASSERT_TRUE(opened);
        EXPECT_EQ(registers.values[smmu::reg::control], 0xdU);
        EXPECT_EQ(registers.commands, (SmmuCommands{{0x04, 31}, {0x30, 0}}));
        EXPECT_EQ(registers.values[smmu::reg::stream_table_config], 8U) << "linear, 2^8 streams";
        EXPECT_EQ(registers.values[smmu::reg::event_queue] & 0x1f, 4U);
    }
    EXPECT_EQ(registers.values[smmu::reg::control], 0U);
    EXPECT_EQ(memory.pool.units_in_use(), 0U);
}

TEST_F(Smmuv3Test, ranges_are_one_command_where_the_unit_has_them) {
    open();
    map(0x5000, 4_KiB);
    EXPECT_TRUE(registers.commands.empty()) << "absent entries are not cached";
    ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB));
    EXPECT_EQ(registers.commands, (SmmuCommands{{0x12 | asid(), 0x5000 | bit(10) | 1}}));
    EXPECT_EQ(registers.syncs, 1U);
    registers.commands.clear();
    map(0x3000, 20_KiB);
    ASSERT_TRUE(domain->unmap(Iova(0x3000), 20_KiB));
    EXPECT_EQ(registers.commands, (SmmuCommands{{0x12 | asid() | 4U << 12, 0x3000 | bit(10) | 1}}));
    registers.commands.clear();
    const InvalidationRequest<Iova> request = {Iova(0x1000), Iova(0x1000 + 33 * 4096 - 1)};
    ASSERT_TRUE(unit->invalidate(domain->number(), {&request, 1}));
    EXPECT_EQ(registers.commands, (SmmuCommands{{0x12 | asid(), 0x1000 | bit(10) | 1},
                                                {0x12 | asid() | 5U << 20, 0x2000 | bit(10) | 1}}))
        << "one page, then 2^5";
}

TEST_F(Smmuv3Test, device_tlbs_of_a_domain_follow_its_tlb) {
    registers.values[smmu::reg::idr0] |= 1U << 10;
    open();
    EXPECT_EQ(registers.values[smmu::reg::control], 0x1dU) << "translated accesses are checked";
    ASSERT_TRUE(domain->attach(0x23, iommu::DeviceTlb{}));
    ASSERT_TRUE(domain->attach(0x25));
    const auto serves = [&](std::size_t stream) {
        return words_at(smmu::reg::stream_table)[8 * stream + 1] >> 28 & 3;
    };
    EXPECT_EQ(serves(0x23), 1U);
    EXPECT_EQ(serves(0x25), 0U);
    map(0x8000, 16_KiB);
    registers.commands.clear();
    registers.syncs = 0;
    ASSERT_TRUE(domain->unmap(Iova(0x8000), 16_KiB));
    const std::uint64_t head = 0x40 | 0x23ULL << 32;
    EXPECT_EQ(registers.commands,
              (SmmuCommands{{0x12 | asid() | 2U << 20, 0x8000 | bit(10) | 1}, {head, 0x8002}}));
    EXPECT_EQ(registers.syncs, 2U) << "the second is sent when the first is complete";

    map(0x5000, 4_KiB);
    registers.commands.clear();
    ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB));
    EXPECT_EQ(registers.commands.at(1), (smmu::Command{head, 0x5000}));

    registers.commands.clear();
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(registers.commands.at(1), (smmu::Command{head, 52}));

    registers.commands.clear();
    ASSERT_TRUE(unit->detach(0x23));
    EXPECT_EQ(registers.commands.back(), (smmu::Command{head, 52}));
    registers.commands.clear();
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(registers.commands.size(), 1U) << "no device-TLB is left";
    ASSERT_TRUE(unit->detach(0x25));
}

TEST_F(Smmuv3Test, device_tlb_needs_a_unit_that_serves_it) {
    open();
    EXPECT_EQ(domain->attach(0x23, iommu::DeviceTlb{}).error().code(), ErrorCode::unsupported);
    ASSERT_TRUE(domain->attach(0x23));
    ASSERT_TRUE(unit->detach(0x23));
}

TEST_F(Smmuv3Test, pages_are_named_alone_where_it_has_no_ranges) {
    open(0);
    map(0x3000, 8_KiB);
    ASSERT_TRUE(domain->unmap(Iova(0x3000), 8_KiB));
    EXPECT_EQ(registers.commands,
              (SmmuCommands{{0x12 | asid(), 0x3000 | 1}, {0x12 | asid(), 0x4000 | 1}}));
    EXPECT_EQ(registers.syncs, 1U);
    registers.commands.clear();
    map(0x10000, 68_KiB);
    ASSERT_TRUE(domain->unmap(Iova(0x10000), 68_KiB));
    EXPECT_EQ(registers.commands, (SmmuCommands{{0x11 | asid(), 0}})) << "17 pages";
}

TEST_F(Smmuv3Test, nonsense_ranges_invalidate_the_address_space) {
    open();
    for (const auto& [start, last] : {std::pair{0x2000UL, 0x1000UL}, std::pair{0UL, ~0UL}}) {
        registers.commands.clear();
        const InvalidationRequest<Iova> request = {Iova(start), Iova(last)};
        ASSERT_TRUE(unit->invalidate(domain->number(), {&request, 1}));
        EXPECT_EQ(registers.commands, (SmmuCommands{{0x11 | asid(), 0}})) << last;
    }
}

TEST_F(Smmuv3Test, removed_tables_are_forgotten_too) {
    open();
    for (std::uint64_t at = 0x200000; at != 0x400000; at += 4096)
        ASSERT_TRUE(domain->map(Iova(at), 4_KiB, PhysicalAddress(0x10000000 + 2 * at), read_write));
    ASSERT_TRUE(domain->unmap(Iova(0x200000), 2_MiB));
    EXPECT_EQ(registers.commands, (SmmuCommands{{0x12 | asid() | 9U << 20, 0x200000 | bit(10)}}))
        << "without the hint that only leaves changed";
}

TEST_F(Smmuv3Test, deferred_unmaps_wait_for_one_invalidation) {
    open();
    map(0x5000, 4_KiB);
    ASSERT_TRUE(domain->unmap_deferred(Iova(0x5000), 4_KiB));
    EXPECT_TRUE(registers.commands.empty());
    EXPECT_FALSE(domain->reader().translate(Iova(0x5000)));
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(registers.commands, (SmmuCommands{{0x11 | asid(), 0}}));
}

TEST_F(Smmuv3Test, attached_stream_has_an_entry_and_a_context) {
    open();
    ASSERT_TRUE(domain->attach(0x23));
    EXPECT_EQ(registers.commands, (SmmuCommands{{0x03 | 0x23ULL << 32, 1}}));
    EXPECT_EQ(domain->attach(0x23).error().code(), ErrorCode::busy);
    EXPECT_EQ(domain->attach(0x123).error().code(), ErrorCode::out_of_range);
    const Word* const stream = words_at(smmu::reg::stream_table) + std::size_t{8} * 0x23;
    EXPECT_EQ(stream[0] & low_bits(6), 0xbU) << "valid, stage 1 alone";
    EXPECT_EQ(stream[1], 0xd4U | bit(27));
    const Word* const context = memory.pool.words(PhysicalAddress(stream[0] & field_mask(51, 6)));
    EXPECT_EQ(context[0] & low_bits(16), 0x3510U) << "48 bits, 4K, cacheable, inner shareable";
    EXPECT_EQ(context[0] >> 48, domain->number());
    EXPECT_EQ(context[0] >> 32 & 7, 4U) << "44 bits of output";
    EXPECT_EQ(context[1], domain->table().root().table.value());
    EXPECT_EQ(context[3], 0x04ffU);
    ASSERT_TRUE(unit->detach(0x23));
    EXPECT_EQ(stream[0], 0U);
    EXPECT_EQ(unit->detach(0x23).error().code(), ErrorCode::not_found);
    EXPECT_EQ(unit->detach(0xff00).error().code(), ErrorCode::not_found);
}

TEST_F(Smmuv3Test, leaves_are_for_unprivileged_requests) {
    open();
    ASSERT_TRUE(domain->map(Iova(0x5000), 4_KiB, PhysicalAddress(0), Attributes::write));
    EXPECT_TRUE(
        has(domain->reader().translate(Iova(0x5000))->attributes(), read_write | Attributes::user))
        << "stage 1 has no leaf that can only be written";
    ASSERT_TRUE(domain->map(Iova(0x6000), 4_KiB, PhysicalAddress(0), read_only));
    EXPECT_FALSE(has(domain->reader().translate(Iova(0x6000))->attributes(), Attributes::write));
    EXPECT_EQ(domain->map(Iova(0x7000), 4_KiB, PhysicalAddress(0), Attributes::none).error().code(),
              ErrorCode::unsupported);
    EXPECT_EQ(domain->map(Iova(bit(48)), 4_KiB, PhysicalAddress(0), read_write).error().code(),
              ErrorCode::out_of_range);
}

TEST_F(Smmuv3Test, part_of_a_large_leaf_stays_mapped) {
    open();
    map(0x200000, 2_MiB);
    EXPECT_EQ(domain->unmap(Iova(0x200000), 4_KiB).error().code(), ErrorCode::refused);
    EXPECT_TRUE(domain->reader().translate(Iova(0x200000)));
    map(0x10000, 64_KiB);
    EXPECT_TRUE(domain->unmap(Iova(0x12000), 4_KiB)) << "16 pages are no group";
}

TEST_F(Smmuv3Test, unsuitable_units_are_refused_by_name) {
    const std::uint32_t idr0 = FakeSmmuv3::usual_idr0;
    for (const std::uint32_t absent : {0U, ~0U})
        EXPECT_EQ(refusal(smmu::reg::idr0, absent), ErrorCode::unsupported);
    EXPECT_EQ(refusal(smmu::reg::idr0, idr0 & ~(1U << 1)), ErrorCode::unsupported)
        << "stage 2 alone";
    EXPECT_EQ(refusal(smmu::reg::idr0, idr0 & ~(1U << 3)), ErrorCode::unsupported)
        << "no VMSAv8-64";
    EXPECT_EQ(refusal(smmu::reg::idr0, idr0 & ~(1U << 4)), ErrorCode::unsupported)
        << "not coherent";
    EXPECT_EQ(refusal(smmu::reg::idr5, 1U << 6), ErrorCode::unsupported) << "64K alone";
    for (const unsigned fixed : {29U, 30U})
        EXPECT_EQ(refusal(smmu::reg::idr1, FakeSmmuv3::usual_idr1 | 1U << fixed),
                  ErrorCode::unsupported);
    FakeSmmuv3 not_coherent(memory.pool, idr0 & ~(1U << 4));
    EXPECT_TRUE(
        Smmu::open(not_coherent, memory.pool,
                   {.stream_bits = 8, .events_lg2 = 4, .coherence = iommu::Coherence::known}));
}

TEST_F(Smmuv3Test, unit_that_does_nothing_is_an_error_in_bounded_time) {
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
    const auto opened = Smmu::open(registers, memory.pool, small_smmu);
    EXPECT_FALSE(opened);
}

TEST_F(Smmuv3Test, rejected_command_is_an_error) {
    open();
    map(0x5000, 4_KiB);
    registers.rejects = true;
    const auto unmapped = domain->unmap(Iova(0x5000), 4_KiB);
    ASSERT_FALSE(unmapped);
    EXPECT_EQ(unmapped.error().sentence(), "the SMMU rejected a command");
}

TEST_F(Smmuv3Test, queue_goes_round) {
    open();
    for (unsigned i = 0; i != 1000; ++i) {
        map(0x5000, 4_KiB);
        ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB)) << i;
    }
    EXPECT_EQ(registers.syncs, 1000U);
    EXPECT_EQ(registers.commands.size(), 1000U);
}

TEST_F(Smmuv3Test, events_are_taken_in_order_and_overflow_is_acknowledged) {
    open();
    std::vector<fault::Record> taken;
    auto keep = [&](const fault::Record& each) { taken.push_back(each); };
    for (unsigned round = 0; round != 5; ++round) {
        for (std::uint64_t i = 0; i != 20; ++i)
            registers.record({0x10 | 0x23ULL << 32, i % 2 == 0 ? 0 : bit(35), 0x5000 + 4 * i});
        EXPECT_EQ(unit->take_faults(keep), 1U) << "20 do not fit into 16";
        ASSERT_EQ(taken.size(), 16U);
        for (std::uint64_t i = 0; i != 16; ++i) {
            EXPECT_EQ(taken[i].where, IovaRange(Iova(0x5000 + 4 * i), 1_B));
            EXPECT_EQ(taken[i].precision, fault::Precision::start);
            EXPECT_EQ(taken[i].access, i % 2 == 0 ? fault::Access::write : fault::Access::read);
            EXPECT_EQ(taken[i].source, fault::Source::requester(0x23));
            EXPECT_EQ(taken[i].reason, fault::Reason::not_present);
        }
        taken.clear();
        EXPECT_EQ(unit->take_faults(keep), 0U);
        EXPECT_TRUE(taken.empty());
    }
}

TEST_F(Smmuv3Test, abort_of_the_queue_is_a_loss_and_acknowledged) {
    open();
    registers.aborts = true;
    auto ignore = [](const fault::Record&) {};
    for (unsigned round = 0; round != 3; ++round) {
        for (unsigned i = 0; i != 17; ++i)
            registers.record({0x10, 0, 0x5000});
        EXPECT_NE(registers.values[smmu::reg::errors],
                  registers.values[smmu::reg::errors_acknowledged]);
        EXPECT_EQ(unit->take_faults(ignore), 1U);
        EXPECT_EQ(registers.values[smmu::reg::errors],
                  registers.values[smmu::reg::errors_acknowledged]);
        EXPECT_EQ(unit->take_faults(ignore), 0U);
    }
}

/// Indices and events are numbers from a device.
TEST_F(Smmuv3Test, hostile_queue_ends_and_stays_inside) {
    open();
    Word* const events =
        memory.pool.words(PhysicalAddress(registers.values[smmu::reg::event_queue] & ~low_bits(5)));
    for (std::size_t i = 0; i != 64; ++i)
        events[i] = ~std::uint64_t{0} / (i + 1);
    for (std::uint64_t producer = 0; producer != 64; ++producer) {
        for (const std::uint64_t high : {0UL, bit(31), bit(20), 0xffffffc0UL}) {
            registers.values[smmu::reg::event_producer] = producer | high;
            unsigned count = 0;
            auto each = [&](const fault::Record&) { ++count; };
            EXPECT_LE(unit->take_faults(each), 1U);
            EXPECT_LE(count, 16U);
        }
    }
    registers.values[smmu::reg::event_producer] = 0xffffffff;
    auto never = [](const fault::Record&) { ADD_FAILURE() << "a unit that is gone"; };
    EXPECT_EQ(unit->take_faults(never), 0U);
}

/// Registers are numbers from a device: it is refused, or driven within its limits.
TEST(Smmuv3Hostile, any_capabilities_are_driven_or_refused) {
    unsigned opened_units = 0;
    std::uint64_t random = 1;
    for (unsigned round = 0; round != 3000; ++round) {
        std::array<std::uint32_t, 4> idr{};
        for (std::uint32_t& each : idr) {
            random = random * 6364136223846793005U + 1442695040888963407U;
            each = static_cast<std::uint32_t>(random >> 32);
        }
        idr[0] |= FakeSmmuv3::usual_idr0;
        idr[1] &= ~(3U << 29);
        UnitMemory memory;
        FakeSmmuv3 registers(memory.pool, idr[0], idr[1], idr[2], idr[3]);
        auto unit = Smmu::open(registers, memory.pool, small_smmu);
        if (!unit) {
            EXPECT_EQ(unit.error().code(), ErrorCode::unsupported);
            continue;
        }
        ++opened_units;
        auto domain = *SmmuDomain::create(**unit);
        const auto attached = domain->attach(1);
        EXPECT_TRUE(attached || attached.error().code() == ErrorCode::out_of_range);
        EXPECT_TRUE(domain->map(Iova(0x5000), 128_KiB, PhysicalAddress(0), read_write));
        registers.record({~std::uint64_t{0}, ~std::uint64_t{0}, ~std::uint64_t{0}});
        registers.record({~std::uint64_t{0}, ~std::uint64_t{0}, ~std::uint64_t{0}});
        unsigned count = 0;
        auto each = [&](const fault::Record&) { ++count; };
        EXPECT_LE((*unit)->take_faults(each), 1U);
        EXPECT_GE(count, 1U);
        EXPECT_TRUE(domain->unmap(Iova(0x5000), 128_KiB));
        EXPECT_TRUE(!attached || (*unit)->detach(1));
    }
    EXPECT_GT(opened_units, 100U);
}

TEST(Smmuv3Event, reads_every_number) {
    using enum fault::Reason;
    const std::vector<std::pair<unsigned, fault::Reason>> expected = {
        {0x01U, bad_request},  {0x02U, not_attached},    {0x03U, table_access},
        {0x04U, not_attached}, {0x05U, bad_request},     {0x06U, blocked},
        {0x08U, pasid},        {0x0aU, malformed_table}, {0x0bU, table_access},
        {0x10U, not_present},  {0x11U, address_size},    {0x12U, permission},
        {0x13U, permission},   {0x20U, hardware},        {0xffU, unknown}};
    for (const auto& [number, reason] : expected)
        EXPECT_EQ(smmu::decode({number, 0, 0}).reason, reason) << number;
    EXPECT_EQ(smmu::decode({0x04, 0, 0x1234}).precision, fault::Precision::none);
    const auto tagged = smmu::decode({0x13 | bit(11) | 0xabcdeULL << 12 | 0x12345ULL << 32,
                                      bit(35) | bit(34), ~std::uint64_t{0}});
    EXPECT_EQ(tagged.pasid, 0xabcdeU);
    EXPECT_EQ(tagged.access, fault::Access::execute);
    EXPECT_EQ(tagged.source, fault::Source::stream(0x12345));
    EXPECT_EQ(tagged.where.last(), Iova(~std::uint64_t{0}));
}

TEST(Smmuv3Memory, every_allocation_fails_once) {
    expect_every_allocation_fails_once<SmmuDomain, FakeSmmuv3>(small_smmu);
}

} // namespace
} // namespace moat::tests
