// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The accesses that the software IOMMU permits, and its faults for the others.
#include "moat/core/text.hpp"

#include "soft_system.hpp"

#include <gtest/gtest.h>
#include <map>
#include <random>
#include <string>

namespace moat::tests {

namespace {

using fault::Access;
using fault::Reason;
using namespace literals;

constexpr fault::Source nic = fault::Source::pci(0, 3, 0, 0);
constexpr fault::Source disk = fault::Source::pci(0, 4, 0, 0);

std::vector<std::byte> filled(std::size_t size, int value) {
    return {size, static_cast<std::byte>(value)};
}

class SoftIommuTest : public testing::Test {
  protected:
    Result<void> map(Iova start, const Buffer& buffer, Attributes attributes = read_write) {
        return domain.map(start, buffer.size(), buffer.physical(), attributes);
    }

    std::vector<fault::Record> faults_of(fault::Source source) {
        std::vector<fault::Record> taken;
        const auto lost =
            iommu.take_faults(source, [&](const auto& each) { taken.push_back(each); });
        EXPECT_TRUE(lost);
        return taken;
    }

    OwnTables tables;
    SoftDomain domain{empty_table(tables)};
    SoftIommu iommu;
    SoftIommu::Device& device = **iommu.add_device(nic);
    Lane lane{device};
};

/// Attached to the domain.
class AttachedDevice : public SoftIommuTest {
  protected:
    AttachedDevice() { EXPECT_TRUE(iommu.attach(nic, domain)); }
};

TEST_F(SoftIommuTest, a_device_is_blocked_until_it_is_attached) {
    const Buffer buffer(4096);
    ASSERT_TRUE(map(Iova(0x10000), buffer));
    const auto written = lane.write(Iova(0x10000), filled(8, 1));
    ASSERT_FALSE(written.complete());
    EXPECT_EQ(written.fault->reason, Reason::blocked);
    EXPECT_EQ(written.done, 0_B);
    EXPECT_EQ(buffer.data()[0], std::byte{0});

    ASSERT_TRUE(iommu.attach(nic, domain));
    EXPECT_TRUE(lane.write(Iova(0x10000), filled(8, 1)).complete());
    EXPECT_EQ(buffer.data()[7], std::byte{1});

    ASSERT_TRUE(iommu.detach(nic));
    EXPECT_EQ(lane.write(Iova(0x10000), filled(8, 2)).fault->reason, Reason::blocked);
    EXPECT_EQ(buffer.data()[7], std::byte{1});
}

TEST_F(SoftIommuTest, identity_is_asked_for) {
    const Buffer buffer(8192);
    ASSERT_TRUE(iommu.attach_identity(nic));
    EXPECT_TRUE(lane.write(Iova(buffer.physical().value() + 4000), filled(200, 7)).complete());
    EXPECT_EQ(buffer.data()[4199], std::byte{7});
}

TEST_F(SoftIommuTest, sources_are_known_or_named_in_the_error) {
    EXPECT_EQ(iommu.add_device(nic).error().code(), ErrorCode::overlap);
    EXPECT_EQ(iommu.attach(disk, domain).error().code(), ErrorCode::not_found);
    EXPECT_EQ(*iommu.detach(disk).error().find("source"), disk.id());
    EXPECT_EQ(iommu.take_faults(disk, [](auto&) {}).error().code(), ErrorCode::not_found);
}

TEST_F(AttachedDevice, the_cache_of_one_attachment_is_not_used_for_the_next) {
    const Buffer first(4096);
    const Buffer second(4096);
    SoftDomain other(empty_table(tables));
    ASSERT_TRUE(map(Iova(0), first));
    ASSERT_TRUE(other.map(Iova(0), second.size(), second.physical(), read_write));
    ASSERT_TRUE(lane.write(Iova(0), filled(1, 1)).complete());
    ASSERT_TRUE(iommu.attach(nic, other));
    ASSERT_TRUE(lane.write(Iova(0), filled(1, 2)).complete());
    EXPECT_EQ(first.data()[0], std::byte{1});
    EXPECT_EQ(second.data()[0], std::byte{2});
    ASSERT_TRUE(iommu.detach(nic)); // `other` is destroyed before the device
}

TEST_F(AttachedDevice, an_access_may_be_unaligned_and_cross_leaves) {
    const Buffer low(8192);
    const Buffer high(4096);
    ASSERT_TRUE(map(Iova(0x1000), low));
    ASSERT_TRUE(map(Iova(0x3000), high));
    std::vector<std::byte> data(8000);
    for (std::size_t i = 0; i != data.size(); ++i)
        data[i] = static_cast<std::byte>(i * 7);
    ASSERT_TRUE(lane.write(Iova(0x1fff), data).complete());
    std::vector<std::byte> back(data.size());
    ASSERT_TRUE(lane.read(Iova(0x1fff), back).complete());
    EXPECT_EQ(back, data);
    EXPECT_EQ(low.data()[0xfff], data[0]);
    EXPECT_EQ(high.data()[0], data[0x1001]);
}

TEST_F(AttachedDevice, an_overrun_stops_at_the_guard_and_is_told_to_the_byte) {
    const Buffer buffer(4096);
    ASSERT_TRUE(map(Iova(0x5000), buffer));
    const auto written = lane.write(Iova(0x5fc0), filled(512, 9));
    ASSERT_FALSE(written.complete());
    EXPECT_EQ(written.done, 64_B);
    EXPECT_EQ(buffer.data()[4095], std::byte{9});
    const auto records = faults_of(nic);
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].where, IovaRange(Iova(0x6000), 448_B));
    EXPECT_EQ(records[0].access, Access::write);
    EXPECT_EQ(records[0].reason, Reason::not_present);
    EXPECT_EQ(records[0].precision, fault::Precision::exact);
    EXPECT_EQ(records[0].source, nic);
    EXPECT_TRUE(records[0].time_ns);
}

TEST_F(AttachedDevice, permissions_hold_also_for_what_is_cached) {
    const Buffer readable(4096);
    const Buffer writable(4096);
    ASSERT_TRUE(map(Iova(0x1000), readable, read_only));
    ASSERT_TRUE(map(Iova(0x2000), writable, Attributes::write));
    std::vector<std::byte> into(8);
    for (int round = 0; round != 2; ++round) {
        EXPECT_TRUE(lane.read(Iova(0x1000), into).complete());
        EXPECT_EQ(lane.write(Iova(0x1000), into).fault->reason, Reason::permission);
        EXPECT_TRUE(lane.write(Iova(0x2000), into).complete());
        EXPECT_EQ(lane.read(Iova(0x2000), into).fault->reason, Reason::permission);
    }
}

TEST_F(AttachedDevice, large_leaves_serve_all_of_their_bytes) {
    const Buffer buffer(4U << 20, 2U << 20);
    ASSERT_TRUE(map(Iova(0x40000000), buffer));
    ASSERT_EQ(domain.reader().translate(Iova(0x40000000))->leaf_lg2(), 21U);
    for (const std::uint64_t at : {0x0ULL, 0x1fffffULL, 0x200000ULL, 0x3fffffULL, 0x12345ULL}) {
        ASSERT_TRUE(lane.write(Iova(0x40000000 + at), filled(1, 5)).complete()) << at;
        EXPECT_EQ(buffer.data()[at], std::byte{5}) << at;
    }
    EXPECT_EQ(lane.write(Iova(0x403ffff0), filled(32, 6)).done, 16_B);
    ASSERT_TRUE(domain.unmap(Iova(0x40200000), 4096_B)); // splits the second leaf
    EXPECT_EQ(lane.write(Iova(0x40200000), filled(1, 7)).fault->reason, Reason::not_present);
    EXPECT_TRUE(lane.write(Iova(0x40201000), filled(1, 7)).complete());
    EXPECT_TRUE(lane.write(Iova(0x401ff000), filled(1, 7)).complete());
}

TEST_F(AttachedDevice, what_is_unmapped_is_reached_no_more_though_it_was_cached) {
    const Buffer buffer(4096);
    ASSERT_TRUE(map(Iova(0x1000), buffer));
    ASSERT_TRUE(lane.write(Iova(0x1000), filled(1, 1)).complete());
    ASSERT_TRUE(domain.unmap(Iova(0x1000), 4096_B));
    EXPECT_FALSE(lane.write(Iova(0x1000), filled(1, 2)).complete());
    EXPECT_EQ(buffer.data()[0], std::byte{1});
}

TEST_F(AttachedDevice, a_deferred_unmap_takes_effect_with_the_invalidation_at_the_latest) {
    const Buffer buffer(4096);
    ASSERT_TRUE(map(Iova(0x1000), buffer));
    ASSERT_TRUE(lane.write(Iova(0x1000), filled(1, 1)).complete());
    ASSERT_TRUE(domain.unmap_deferred(Iova(0x1000), 4096_B));
    ASSERT_TRUE(domain.invalidate_all());
    EXPECT_FALSE(lane.write(Iova(0x1000), filled(1, 2)).complete());
}

TEST_F(AttachedDevice, a_table_that_a_strict_unmap_removes_is_free_on_return) {
    const Buffer buffer(4096);
    ASSERT_TRUE(map(Iova(0x1000), buffer));
    const std::uint64_t in_use = tables.pool().units_in_use();
    EXPECT_TRUE(lane.write(Iova(0x1000), filled(8, 1)).complete());
    ASSERT_TRUE(domain.unmap(Iova(0), 2_MiB));
    EXPECT_EQ(tables.pool().units_in_use(), in_use - 1) << "no second wait, no other thread";
    EXPECT_FALSE(lane.write(Iova(0x1000), filled(8, 1)).complete());
}

TEST_F(AttachedDevice, addresses_at_the_edges_of_the_space_are_refused_not_wrapped) {
    const std::uint64_t last = ~std::uint64_t{0};
    const auto beyond = lane.write(Iova(std::uint64_t{1} << 48), filled(8, 1));
    EXPECT_EQ(beyond.fault->reason, Reason::address_size);
    const auto wrapping = lane.write(Iova(last - 3), filled(16, 1));
    EXPECT_EQ(wrapping.fault->reason, Reason::address_size);
    EXPECT_EQ(wrapping.fault->where, IovaRange(Iova(last - 3), 4_B));
    EXPECT_TRUE(lane.write(Iova(last), {}).complete()) << "nothing is asked for";
}

TEST_F(AttachedDevice, a_flood_of_faults_is_counted_and_hides_none_of_anothers) {
    SoftIommu::Device& other = **iommu.add_device(disk);
    Lane others{other};
    ASSERT_TRUE(iommu.attach(disk, domain));
    for (int i = 0; i != 1000; ++i)
        ASSERT_FALSE(lane.write(Iova(0x1000), filled(1, 1)).complete());
    ASSERT_FALSE(others.write(Iova(0x2000), filled(1, 1)).complete());
    std::size_t seen = 0;
    const auto lost = iommu.take_faults(nic, [&](auto&) { ++seen; });
    EXPECT_EQ(seen, 64U);
    EXPECT_EQ(*lost, 1000U - 64U);
    EXPECT_EQ(faults_of(disk).size(), 1U);
    EXPECT_EQ(*iommu.take_faults(nic, [&](auto&) {}), 0U) << "said once";
}

TEST_F(AttachedDevice, losses_are_told_with_the_next_record) {
    for (int i = 0; i != 70; ++i)
        ASSERT_FALSE(lane.write(Iova(0x1000), filled(1, 1)).complete());
    fault::Record record;
    std::uint64_t lost = 0;
    ASSERT_TRUE(device.faults().pop(record, lost));
    ASSERT_FALSE(lane.write(Iova(0x3000), filled(1, 1)).complete());
    std::uint64_t suppressed = 0;
    while (device.faults().pop(record, lost))
        suppressed += record.suppressed;
    EXPECT_EQ(record.where.start(), Iova(0x3000));
    EXPECT_EQ(suppressed, 6U);
    EXPECT_EQ(lost, 6U);
}

TEST_F(AttachedDevice, a_batch_is_one_access_and_tells_its_faults_at_its_end) {
    const Buffer buffer(4096);
    ASSERT_TRUE(map(Iova(0x1000), buffer));
    {
        const Lane::Batch batch(lane);
        EXPECT_TRUE(lane.write(Iova(0x1000), filled(8, 1)).complete());
        EXPECT_EQ(lane.write(Iova(0x1ff8), filled(16, 2)).done, 8_B);
        EXPECT_EQ(lane.write(Iova(0x5000), filled(1, 3)).fault->where,
                  IovaRange(Iova(0x5000), 1_B));
        EXPECT_TRUE(faults_of(nic).empty());
        EXPECT_EQ(lane.translate<Access::read>(batch, Iova(0x1001)), buffer.data() + 1);
        EXPECT_EQ(lane.translate<Access::read>(batch, Iova(0x2000)), nullptr);
    }
    const auto told = faults_of(nic);
    ASSERT_EQ(told.size(), 2U);
    EXPECT_EQ(told[0].where, IovaRange(Iova(0x2000), 8_B));
    EXPECT_EQ(told[1].where, IovaRange(Iova(0x5000), 1_B));
}

/// A handler that repairs the mapping, and one that gives up.
struct Handler {
    SoftDomain* domain = nullptr;
    SoftIommu* iommu = nullptr;
    const Buffer* buffer = nullptr;
    std::vector<fault::Record> seen;
};

TEST(FaultHandlers, device_and_domain_hear_of_it_and_may_map_unmap_and_detach) {
    OwnTables tables;
    const Buffer buffer(4096);
    SoftIommu iommu;
    Handler mends{.iommu = &iommu, .buffer = &buffer, .seen = {}};
    Handler gives_up{.iommu = &iommu, .seen = {}};
    SoftDomain domain(empty_table(tables),
                      {.handler = {[](void* context, const fault::Record& record) {
                                       auto& self = *static_cast<Handler*>(context);
                                       self.seen.push_back(record);
                                       EXPECT_TRUE(self.domain->map(Iova(0x1000), 4096_B,
                                                                    self.buffer->physical(),
                                                                    read_write));
                                       EXPECT_TRUE(self.domain->unmap(Iova(0x9000), 4096_B));
                                   },
                                   &mends}});
    mends.domain = &domain;
    auto& device = **iommu.add_device(nic, {[](void* context, const fault::Record& record) {
                                                auto& self = *static_cast<Handler*>(context);
                                                self.seen.push_back(record);
                                                if (self.seen.size() == 2) {
                                                    EXPECT_TRUE(self.iommu->detach(nic));
                                                }
                                            },
                                            &gives_up});
    Lane lane(device);
    ASSERT_TRUE(iommu.attach(nic, domain));
    ASSERT_FALSE(lane.write(Iova(0x1000), filled(1, 1)).complete());
    EXPECT_TRUE(lane.write(Iova(0x1000), filled(1, 1)).complete()) << "the handler mapped it";
    EXPECT_EQ(mends.seen.size(), 1U);
    ASSERT_TRUE(domain.unmap(Iova(0x1000), 4096_B));
    ASSERT_FALSE(lane.write(Iova(0x1000), filled(1, 1)).complete());
    EXPECT_EQ(lane.write(Iova(0x1000), filled(1, 1)).fault->reason, Reason::blocked)
        << "the handler detached it";
    EXPECT_EQ(gives_up.seen.size(), 3U);
    EXPECT_EQ(mends.seen.size(), 2U) << "a blocked device is in no domain";
}

TEST(ByteBounds, an_access_ends_where_the_buffer_does) {
    OwnTables tables;
    const Buffer buffer(4096);
    const IovaRange inside(Iova(0x1010), 100_B);
    SoftDomain domain(empty_table(tables));
    const auto registered =
        domain.register_bounds({[](void* context, Iova start, ByteCount size) {
                                    const auto& range = *static_cast<const IovaRange*>(context);
                                    return range.intersection({start, size}).start() == start
                                               ? range.intersection({start, size}).size()
                                               : ByteCount(0);
                                },
                                const_cast<IovaRange*>(&inside)});
    ASSERT_TRUE(registered);
    SoftIommu iommu;
    Lane lane(**iommu.add_device(nic));
    ASSERT_TRUE(iommu.attach(nic, domain));
    ASSERT_TRUE(domain.map(Iova(0x1000), 4096_B, buffer.physical(), read_write));
    for (int round = 0; round != 2; ++round) {
        EXPECT_TRUE(lane.write(Iova(0x1010), filled(100, 1)).complete());
        const auto over = lane.write(Iova(0x1010), filled(103, 2));
        EXPECT_EQ(over.done, 100_B);
        EXPECT_EQ(over.fault->reason, Reason::out_of_bounds);
        EXPECT_EQ(over.fault->where, IovaRange(Iova(0x1074), 3_B));
        EXPECT_EQ(lane.write(Iova(0x100f), filled(4, 3)).done, 0_B);
    }
    EXPECT_EQ(buffer.data()[0x73], std::byte{2});
    EXPECT_EQ(buffer.data()[0x74], std::byte{0});
}

TEST(Limits, what_the_domain_does_not_reach_is_refused_with_its_values) {
    OwnTables tables;
    const IovaRange reserved[] = {{Iova(0xfee00000), 1_MiB}};
    SoftDomain domain(empty_table(tables), {.reserved = reserved, .address_bits = 32});
    EXPECT_EQ(domain.limits().aperture, IovaRange(Iova(0), 4_GiB));
    EXPECT_EQ(domain.limits().leaf_sizes, bit(12) | bit(21) | bit(30));
    EXPECT_TRUE(has(domain.limits().known, read_write | Attributes::snoop));
    const auto map = [&](std::uint64_t start, ByteCount size) {
        const auto done = domain.map(Iova(start), size, PhysicalAddress(0x1000), read_write);
        return done ? "mapped" : std::string(name(done.error().code()));
    };
    EXPECT_EQ(map(0x1000, 0_B), "empty");
    EXPECT_EQ(map(0xfffff000, 8_KiB), "out of range");
    EXPECT_EQ(map(0xfedff000, 8_KiB), "overlap");
    EXPECT_EQ(map(0x1001, 4_KiB), "unaligned");
    EXPECT_EQ(map(0xffffffffffffff00, 4_KiB), "overflow");
    EXPECT_EQ(map(0x1000, 4_KiB), "mapped");
    EXPECT_EQ(map(0x1000, 4_KiB), "overlap");
}

/// Random maps, unmaps and accesses against a table of pages. `MOAT_SEED` replays.
TEST(Random, a_device_reaches_what_a_model_says) {
    const char* const given = std::getenv("MOAT_SEED");
    const unsigned seed = given != nullptr ? std::stoul(given) : 20261121;
    SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
    std::mt19937 random(seed);
    constexpr std::uint64_t pages = 1024;
    OwnTables tables;
    const Buffer memory(pages << 12);
    SoftDomain domain(empty_table(tables));
    SoftIommu iommu;
    Lane lane(**iommu.add_device(nic));
    ASSERT_TRUE(iommu.attach(nic, domain));
    std::map<std::uint64_t, std::pair<std::uint64_t, Attributes>> model; // page -> page, rights
    for (int step = 0; step != 20'000; ++step) {
        const std::uint64_t page = random() % pages;
        const std::uint64_t count = 1 + random() % 8;
        if (random() % 4 == 0) {
            const Attributes rights = random() % 3 == 0 ? read_only : read_write;
            const std::uint64_t frame = random() % (pages - 8);
            const auto at = model.lower_bound(page);
            const bool free = at == model.end() || at->first >= page + count;
            const auto done =
                domain.map(Iova(page << 12), ByteCount(count << 12),
                           PhysicalAddress(memory.physical().value() + (frame << 12)), rights);
            ASSERT_EQ(done.has_value(), free);
            for (std::uint64_t i = 0; free && i != count; ++i)
                model[page + i] = {frame + i, rights};
        } else if (random() % 3 == 0) {
            ASSERT_TRUE(domain.unmap(Iova(page << 12), ByteCount(count << 12)));
            model.erase(model.lower_bound(page), model.lower_bound(page + count));
        } else {
            const std::uint64_t offset = random() % 4096;
            const std::uint64_t address = (page << 12) + offset;
            std::uint64_t size = 1 + random() % 9000;
            const bool writes = random() % 2 == 0;
            std::uint64_t expected = 0;
            while (expected < size) {
                const auto found = model.find((address + expected) >> 12);
                if (found == model.end() || (writes && found->second.second == read_only))
                    break;
                expected += 4096 - ((address + expected) & 4095);
            }
            std::vector<std::byte> data(size, static_cast<std::byte>(step));
            const auto moved =
                writes ? lane.write(Iova(address), data) : lane.read(Iova(address), data);
            ASSERT_EQ(moved.done.value(), std::min(expected, size)) << "step " << step;
            if (moved.done != 0_B) {
                const auto last = address + moved.done.value() - 1;
                const auto& frame = model[last >> 12].first;
                ASSERT_EQ(memory.data()[(frame << 12) + (last & 4095)],
                          data[moved.done.value() - 1]);
            }
        }
    }
}

} // namespace

} // namespace moat::tests
