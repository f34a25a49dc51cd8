// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of VT-d units against the test's registers: its commands, and its errors for units
// with few capabilities, units that do nothing, and missing units.
#include "moat/core/text.hpp"

#include "fake_vtd.hpp"
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
using namespace moat::iommu::vtd;
using Unit4 = Unit<FakeVtd, Pool, RealSync>;
using Domain4 = iommu::vtd::Domain<Unit4, 4>;

static_assert(iommu::DeferringDomain<Domain4>);

class VtdTest : public ::testing::Test {
  protected:
    void open(std::uint64_t capability = FakeVtd::usual_capability,
              std::uint64_t extended = FakeVtd::usual_extended) {
        registers.values[reg::capability] = capability;
        registers.values[reg::extended_capability] = extended;
        auto opened = Unit4::open(registers, memory.pool);
        ASSERT_TRUE(opened) << opened.error();
        unit = std::move(*opened);
        auto created = Domain4::create(*unit);
        ASSERT_TRUE(created) << created.error();
        domain = std::move(*created);
        registers.by_queue.clear();
        registers.by_registers.clear();
        registers.waits = 0;
    }

    [[nodiscard]] ErrorCode refusal(std::uint64_t capability, std::uint64_t extended,
                                    UnitOptions options = {}) {
        registers.values[reg::capability] = capability;
        registers.values[reg::extended_capability] = extended;
        const auto opened = Unit4::open(registers, memory.pool, options);
        EXPECT_FALSE(opened);
        return opened ? ErrorCode::io : opened.error().code();
    }

    void map(std::uint64_t start, ByteCount size) {
        ASSERT_TRUE(domain->map(Iova(start), size, PhysicalAddress(start), read_write));
    }

    [[nodiscard]] std::uint64_t number() const { return domain->number(); }

    UnitMemory memory;
    FakeVtd registers{memory.pool};
    std::unique_ptr<Unit4> unit;
    std::unique_ptr<Domain4> domain;
};

TEST_F(VtdTest, is_turned_on_with_its_caches_empty_and_off_at_the_end) {
    const auto opened = Unit4::open(registers, memory.pool);
    ASSERT_TRUE(opened);
    EXPECT_EQ(registers.values[reg::global_status] & (bit(31) | bit(26)), bit(31) | bit(26));
    const std::vector<FakeVtd::Asked> everything = {{0x11, 0}, {0x12, 0}};
    EXPECT_EQ(registers.by_queue, everything);
}

TEST_F(VtdTest, one_page_is_one_descriptor_and_one_wait) {
    open();
    map(0x5000, 4_KiB);
    EXPECT_TRUE(registers.by_queue.empty()) << "absent entries are not cached";
    ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB));
    const std::vector<FakeVtd::Asked> page = {{0x32 | number() << 16, 0x5000 | bit(6)}};
    EXPECT_EQ(registers.by_queue, page);
    EXPECT_EQ(registers.waits, 1U);
}

TEST_F(VtdTest, a_range_is_covered_by_aligned_blocks) {
    open();
    map(0x3000, 20_KiB);
    ASSERT_TRUE(domain->unmap(Iova(0x3000), 20_KiB));
    const std::uint64_t head = 0x32 | number() << 16;
    const std::vector<FakeVtd::Asked> blocks = {{head, 0x3000 | bit(6)},
                                                {head, 0x4000 | bit(6) | 2}};
    EXPECT_EQ(registers.by_queue, blocks);
    EXPECT_EQ(registers.waits, 1U);
}

TEST_F(VtdTest, tables_that_go_are_forgotten_too) {
    open();
    for (std::uint64_t at = 0x200000; at != 0x400000; at += 4096)
        ASSERT_TRUE(domain->map(Iova(at), 4_KiB, PhysicalAddress(0x10000000 + 2 * at), read_write));
    ASSERT_TRUE(domain->unmap(Iova(0x200000), 2_MiB));
    const std::vector<FakeVtd::Asked> block = {{0x32 | number() << 16, 0x200000 | 9}};
    EXPECT_EQ(registers.by_queue, block) << "without the hint that only leaves changed";
}

TEST_F(VtdTest, several_ranges_are_one_batch) {
    open();
    const std::array<InvalidationRequest<Iova>, 3> requests = {
        {{Iova(0x1000), Iova(0x1fff)}, {Iova(0x8000), Iova(0x8fff)}, {Iova(0), Iova(0xfff)}}};
    ASSERT_TRUE(unit->invalidate(domain->number(), requests));
    EXPECT_EQ(registers.by_queue.size(), 3U);
    EXPECT_EQ(registers.waits, 1U);
}

TEST_F(VtdTest, what_pages_do_not_cover_goes_with_its_domain) {
    const std::vector<FakeVtd::Asked> none;
    open(FakeVtd::usual_capability & ~bit(39));
    const std::vector<FakeVtd::Asked> all = {{0x22 | number() << 16, 0}};
    map(0x5000, 4_KiB);
    ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB));
    EXPECT_EQ(registers.by_queue, all) << "the unit invalidates no pages";
    domain.reset();
    unit.reset();
    open(FakeVtd::usual_capability & ~field_mask(53, 48)); // one page at a time
    const InvalidationRequest<Iova> request = {Iova(0), Iova(0x10fff)};
    ASSERT_TRUE(unit->invalidate(domain->number(), {&request, 1}));
    EXPECT_EQ(registers.by_queue, all) << "17 pages";
}

TEST_F(VtdTest, deferred_unmaps_wait_for_one_invalidation) {
    open();
    map(0x5000, 4_KiB);
    map(0x9000, 4_KiB);
    ASSERT_TRUE(domain->unmap_deferred(Iova(0x5000), 4_KiB));
    ASSERT_TRUE(domain->unmap_deferred(Iova(0x9000), 4_KiB));
    EXPECT_TRUE(registers.by_queue.empty());
    EXPECT_FALSE(domain->reader().translate(Iova(0x5000)));
    ASSERT_TRUE(domain->invalidate_all());
    const std::vector<FakeVtd::Asked> all = {{0x22 | number() << 16, 0}};
    EXPECT_EQ(registers.by_queue, all);
}

TEST_F(VtdTest, draining_is_asked_for_where_it_is_offered) {
    open(FakeVtd::usual_capability | bit(54) | bit(55));
    map(0x5000, 4_KiB);
    ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB));
    ASSERT_EQ(registers.by_queue.size(), 1U);
    EXPECT_EQ(registers.by_queue[0].low & 0xff, 0xf2U);
}

TEST_F(VtdTest, unit_that_caches_absent_entries_hears_of_new_ones) {
    open(FakeVtd::usual_capability | bit(7));
    map(0x5000, 4_KiB);
    ASSERT_EQ(registers.by_queue.size(), 1U);
    EXPECT_EQ(registers.by_queue[0].high & ~low_bits(12), 0x5000U);
    registers.by_queue.clear();
    ASSERT_TRUE(domain->attach(0x0123));
    const std::vector<FakeVtd::Asked> both = {{0x31 | 0x0123ULL << 32, 0},
                                              {0x22 | number() << 16, 0}};
    EXPECT_EQ(registers.by_queue, both);
    ASSERT_TRUE(unit->detach(0x0123));
}

TEST_F(VtdTest, unit_with_a_write_buffer_has_it_flushed) {
    open(FakeVtd::usual_capability | bit(4));
    const unsigned before = registers.write_buffer_flushes;
    map(0x5000, 4_KiB);
    EXPECT_EQ(registers.write_buffer_flushes, before + 1);
}

TEST_F(VtdTest, unit_without_a_queue_is_told_by_registers) {
    open(FakeVtd::usual_capability, FakeVtd::usual_extended & ~bit(1));
    map(0x5000, 4_KiB);
    ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB));
    const std::vector<FakeVtd::Asked> page = {
        {bit(63) | 3ULL << 60 | number() << 32, 0x5000 | bit(6)}};
    EXPECT_EQ(registers.by_registers, page);
    EXPECT_TRUE(registers.by_queue.empty());
    domain.reset();
    unit.reset();
    EXPECT_EQ(refusal(FakeVtd::usual_capability, FakeVtd::usual_extended & ~bit(1),
                      {.invalidate_by = InvalidateBy::queue}),
              ErrorCode::unsupported);
}

TEST_F(VtdTest, device_tlbs_of_a_domain_follow_its_iotlb) {
    open(FakeVtd::usual_capability, FakeVtd::usual_extended | bit(2));
    ASSERT_TRUE(domain->attach(0x0108, iommu::DeviceTlb{.queue_depth = 5}));
    ASSERT_TRUE(domain->attach(0x0110));
    const Word* const root = memory.pool.words(PhysicalAddress(registers.values[reg::root_table]));
    const Word* const context = memory.pool.words(PhysicalAddress(align_down(root[2], 12)));
    EXPECT_EQ(context[2 * 0x08] & 0xf, 5U) << "translation requests are allowed";
    EXPECT_EQ(context[2 * 0x10] & 0xf, 1U);
    map(0x8000, 16_KiB);
    registers.by_queue.clear();
    registers.waits = 0;
    ASSERT_TRUE(domain->unmap(Iova(0x8000), 16_KiB));
    const std::uint64_t head = 0x32 | number() << 16;
    const std::uint64_t device = 0x3 | 5U << 16 | 0x108ULL << 32;
    const std::vector<FakeVtd::Asked> both = {{head, 0x8042}, {device, 0x9001}};
    EXPECT_EQ(registers.by_queue, both);
    EXPECT_EQ(registers.waits, 2U) << "the second is sent when the first is complete";

    map(0x8000, 4_KiB);
    registers.by_queue.clear();
    ASSERT_TRUE(domain->unmap(Iova(0x8000), 4_KiB));
    EXPECT_EQ(registers.by_queue.at(1), (FakeVtd::Asked{device, 0x8000}));

    registers.by_queue.clear();
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(registers.by_queue.at(1), (FakeVtd::Asked{device, 0x7fff'ffff'ffff'f001}));

    registers.by_queue.clear();
    ASSERT_TRUE(unit->detach(0x0108));
    EXPECT_EQ(registers.by_queue.back(), (FakeVtd::Asked{device, 0x7fff'ffff'ffff'f001}));
    registers.by_queue.clear();
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(registers.by_queue.size(), 1U) << "no device-TLB is left";
    ASSERT_TRUE(unit->detach(0x0110));
}

TEST_F(VtdTest, device_tlb_needs_a_unit_that_serves_it) {
    open();
    EXPECT_EQ(domain->attach(0x0108, iommu::DeviceTlb{}).error().code(), ErrorCode::unsupported);
    ASSERT_TRUE(domain->attach(0x0108));
    ASSERT_TRUE(unit->detach(0x0108));
}

TEST_F(VtdTest, context_entries_name_the_domain) {
    open();
    ASSERT_TRUE(domain->attach(0x0123));
    EXPECT_EQ(domain->attach(0x0123).error().code(), ErrorCode::busy);
    const Word root = memory.pool.words(PhysicalAddress(registers.values[reg::root_table]))[2];
    EXPECT_EQ(root & low_bits(12), 1U) << "of bus 1";
    const Word* const entry =
        memory.pool.words(PhysicalAddress(align_down(root, 12))) + std::size_t{2} * 0x23;
    EXPECT_EQ(entry[0] & low_bits(12), 1U);
    EXPECT_EQ(entry[1], number() << 8 | 2);
    ASSERT_TRUE(unit->detach(0x0123));
    EXPECT_EQ(entry[0], 0U);
    const std::vector<FakeVtd::Asked> both = {{0x31 | number() << 16 | 0x0123ULL << 32, 0},
                                              {0x22 | number() << 16, 0}};
    EXPECT_EQ(registers.by_queue, both);
    EXPECT_EQ(unit->detach(0x0123).error().code(), ErrorCode::not_found);
    EXPECT_EQ(unit->detach(0xff00).error().code(), ErrorCode::not_found);
}

TEST_F(VtdTest, leaves_and_addresses_are_those_the_unit_knows) {
    for (const auto& [sizes, largest] :
         {std::pair{std::uint64_t{0}, 12U}, std::pair{bit(34), 21U},
          std::pair{bit(34) | bit(35), 30U}, std::pair{bit(35), 12U}}) {
        open((FakeVtd::usual_capability & ~(bit(34) | bit(35))) | sizes);
        EXPECT_EQ(floor_lg2(domain->limits().leaf_sizes), largest);
        map(0x40000000, largest == 30 ? 1_GiB : 2_MiB);
        EXPECT_EQ(domain->reader().translate(Iova(0x40000000))->leaf_lg2(), largest);
        domain.reset();
        unit.reset();
    }
    open((FakeVtd::usual_capability & ~field_mask(21, 16)) | 38ULL << 16);
    const auto map_page = [&](std::uint64_t at, Attributes attributes = read_write) {
        const auto mapped = domain->map(Iova(at), 4_KiB, PhysicalAddress(0), attributes);
        return mapped ? ErrorCode::empty : mapped.error().code();
    };
    EXPECT_EQ(map_page(bit(39)), ErrorCode::out_of_range);
    EXPECT_EQ(map_page(bit(39) - 4096), ErrorCode::empty) << "no error";
    EXPECT_EQ(map_page(0xfee00000), ErrorCode::overlap) << "interrupt messages";
    EXPECT_EQ(map_page(0, read_write | Attributes::snoop), ErrorCode::unsupported);
}

TEST_F(VtdTest, units_that_cannot_be_driven_are_refused) {
    EXPECT_EQ(refusal(FakeVtd::usual_capability, FakeVtd::usual_extended & ~bit(0)),
              ErrorCode::unsupported)
        << "not coherent";
    registers.values[reg::version] = 0xffffffff;
    EXPECT_EQ(refusal(~std::uint64_t{0}, ~std::uint64_t{0}), ErrorCode::unsupported);
    registers.values[reg::version] = 0;
    EXPECT_EQ(refusal(0, 0), ErrorCode::unsupported);
    registers.values[reg::version] = 0x10;
    registers.values[reg::capability] = FakeVtd::usual_capability & ~bit(10);
    registers.values[reg::extended_capability] = FakeVtd::usual_extended;
    const auto three_levels = Unit4::open(registers, memory.pool);
    ASSERT_TRUE(three_levels);
    EXPECT_EQ(Domain4::create(**three_levels).error().code(), ErrorCode::unsupported);
}

TEST_F(VtdTest, unit_that_stops_is_an_error_that_stays) {
    for (const std::uint64_t queue : {bit(1), std::uint64_t{0}}) {
        registers.stuck = false;
        open(FakeVtd::usual_capability, (FakeVtd::usual_extended & ~bit(1)) | queue);
        map(0x5000, 8_KiB);
        registers.stuck = true;
        EXPECT_EQ(domain->unmap(Iova(0x5000), 4_KiB).error().code(), ErrorCode::io);
        registers.stuck = false;
        EXPECT_EQ(domain->unmap(Iova(0x6000), 4_KiB).error().code(), ErrorCode::io);
        domain.reset();
        unit.reset();
    }
    registers.stuck = true;
    registers.values[reg::global_status] = 0;
    EXPECT_EQ(refusal(FakeVtd::usual_capability, FakeVtd::usual_extended), ErrorCode::io);
}

TEST_F(VtdTest, every_failed_invalidation_is_an_error) {
    open();
    map(0x5000, 8_KiB);
    ASSERT_TRUE(domain->unmap_deferred(Iova(0x5000), 4_KiB));
    registers.stuck = true;
    EXPECT_EQ(domain->invalidate_all().error().code(), ErrorCode::io);
    EXPECT_EQ(domain->unmap(Iova(0x6000), 4_KiB).error().code(), ErrorCode::io);
    registers.stuck = false;
    EXPECT_EQ(domain->invalidate_all().error().code(), ErrorCode::io) << "the unit has failed";
}

TEST_F(VtdTest, new_entries_are_unmapped_where_their_invalidation_fails) {
    open(FakeVtd::usual_capability | bit(7)); // caches absent entries
    registers.stuck = true;
    const std::array<iommu::Piece, 2> pieces = {{{Iova(0x5000), 4_KiB, PhysicalAddress(0x5000)},
                                                 {Iova(0x9000), 4_KiB, PhysicalAddress(0x9000)}}};
    EXPECT_EQ(domain->map_all(pieces, read_write).error().code(), ErrorCode::io);
    EXPECT_EQ(domain->map(Iova(0xb000), 4_KiB, PhysicalAddress(0), read_write).error().code(),
              ErrorCode::io);
    for (const Iova iova : {Iova(0x5000), Iova(0x9000), Iova(0xb000)})
        EXPECT_FALSE(domain->reader().translate(iova)) << iova;
}

TEST_F(VtdTest, lists_keep_to_the_limits_of_the_unit) {
    open((FakeVtd::usual_capability & ~(bit(34) | bit(35))) | bit(7)); // pages only
    const std::array<iommu::Piece, 2> pieces = {{{Iova(0x200000), 2_MiB, PhysicalAddress(0x200000)},
                                                 {Iova(0x600000), 4_KiB, PhysicalAddress(0x9000)}}};
    EXPECT_EQ(domain->map_all(pieces, read_write | Attributes::snoop).error().code(),
              ErrorCode::unsupported);
    EXPECT_FALSE(domain->reader().translate(Iova(0x200000)));
    ASSERT_TRUE(domain->map_all(pieces, read_write));
    EXPECT_EQ(domain->reader().translate(Iova(0x200000))->leaf_lg2(), 12U);
    EXPECT_EQ(registers.by_queue.size(), 2U) << "one invalidation a piece";
}

TEST_F(VtdTest, tables_that_were_not_invalidated_are_kept_until_the_unit_ends) {
    open();
    for (std::uint64_t at = 0x200000; at != 0x400000; at += 4096)
        ASSERT_TRUE(domain->map(Iova(at), 4_KiB, PhysicalAddress(0x10000000 + 2 * at), read_write));
    const std::uint64_t used = memory.pool.units_in_use();
    const std::uint64_t was = number();
    registers.stuck = true;
    EXPECT_EQ(domain->unmap(Iova(0x200000), 2_MiB).error().code(), ErrorCode::io);
    RealSync::barrier();
    EXPECT_EQ(memory.pool.units_in_use(), used) << "removed, but not released";
    domain.reset();
    registers.stuck = false;
    RealSync::barrier();
    EXPECT_EQ(memory.pool.units_in_use(), used) << "the unit may still walk them";
    auto next = Domain4::create(*unit);
    ASSERT_TRUE(next);
    EXPECT_NE((*next)->number(), was) << "the unit may still have entries cached under the number";
    next->reset();
    unit.reset();
    EXPECT_EQ(memory.pool.units_in_use(), 0U);
}

TEST_F(VtdTest, queue_goes_round) {
    open();
    for (unsigned i = 0; i != 1000; ++i) {
        map(0x5000, 4_KiB);
        ASSERT_TRUE(domain->unmap(Iova(0x5000), 4_KiB)) << i;
    }
    EXPECT_EQ(registers.waits, 1000U);
    EXPECT_EQ(registers.by_queue.size(), 1000U);
}

TEST_F(VtdTest, faults_are_taken_in_order_and_cleared) {
    open(FakeVtd::usual_capability | 3ULL << 40); // 4 records
    const auto record = [&](unsigned index, std::uint64_t address, std::uint64_t high) {
        registers.values[FakeVtd::fault_records + 16 * index] = address;
        registers.values[FakeVtd::fault_records + 16 * index + 8] = bit(63) | high;
    };
    record(3, 0x5000, 5ULL << 32 | 0x0123);
    record(0, 0x6000, bit(62) | 6ULL << 32 | 0x0124);
    registers.values[reg::fault_status] = 3U << 8 | 3; // the first is number 3; overflow; pending
    std::vector<fault::Record> taken;
    auto keep = [&](const fault::Record& each) { taken.push_back(each); };
    EXPECT_EQ(unit->take_faults(keep), 1U);
    ASSERT_EQ(taken.size(), 2U);
    EXPECT_EQ(taken[0].where, IovaRange(Iova(0x5000), 4_KiB));
    EXPECT_EQ(taken[0].access, fault::Access::write);
    EXPECT_EQ(taken[0].source, fault::Source::requester(0x0123));
    EXPECT_EQ(taken[0].code, 5U);
    EXPECT_EQ(taken[1].where, IovaRange(Iova(0x6000), 4_KiB));
    EXPECT_EQ(taken[1].access, fault::Access::read);
    EXPECT_EQ(registers.values[FakeVtd::fault_records + 16 * 3 + 8] >> 63, 0U);
    EXPECT_EQ(registers.values[FakeVtd::fault_records + 8] >> 63, 0U);
    EXPECT_EQ(registers.values[reg::fault_status] & 1, 0U);
    registers.values[reg::fault_status] = 0;
    EXPECT_EQ(unit->take_faults(keep), 0U);
    EXPECT_EQ(taken.size(), 2U);
}

TEST(VtdFault, reads_every_reason) {
    using enum fault::Reason;
    const std::vector<std::pair<unsigned, fault::Reason>> expected = {
        {1U, not_attached}, {2U, not_attached},     {3U, malformed_table},  {4U, address_size},
        {5U, permission},   {6U, permission},       {7U, table_access},     {8U, table_access},
        {9U, table_access}, {10U, malformed_table}, {11U, malformed_table}, {12U, malformed_table},
        {13U, bad_request}, {0x22U, interrupt},     {0xffU, unknown},       {0U, unknown}};
    for (const auto& [code, reason] : expected)
        EXPECT_EQ(decode(0x1234, bit(63) | std::uint64_t{code} << 32).reason, reason) << code;
    const auto tagged = decode(0xfff, bit(63) | bit(62) | bit(31) | bit(30) | 0xabcdeULL << 40);
    EXPECT_EQ(tagged.pasid, 0xabcdeU);
    EXPECT_EQ(tagged.access, fault::Access::execute);
    EXPECT_EQ(decode(~std::uint64_t{0}, ~std::uint64_t{0}).where.last(), Iova(~std::uint64_t{0}));
}

TEST(VtdMemory, every_allocation_fails_once) {
    expect_every_allocation_fails_once<Domain4, FakeVtd>();
}

} // namespace
} // namespace moat::tests
