// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of virtio-iommus against the test's registers: what it asks for and when, and its
// errors for devices that refuse, stay silent or lie.
#include "moat/core/text.hpp"

#include "fake_virtio.hpp"

#include <array>
#include <cstddef>
#include <gtest/gtest.h>
#include <memory>
#include <utility>
#include <vector>

namespace moat::tests {
namespace {

using namespace moat::literals;
using VirtioPool = FakeVirtio::Pool;
using VirtioUnit = iommu::virtio::Unit<FakeVirtio, VirtioPool, RealSync>;
using VirtioDomain = iommu::virtio::Domain<VirtioUnit>;
using Mappings = std::map<std::uint64_t, std::uint64_t>;

static_assert(iommu::DeferringDomain<VirtioDomain>);

constexpr std::array<IovaRange, 1> messages = {IovaRange(Iova(0xfee00000), ByteCount(0x100000))};

class VirtioTest : public ::testing::Test {
  protected:
    static constexpr std::size_t tables = 8;
    static constexpr std::uint16_t function = 0x20;

    void SetUp() override { ASSERT_NO_FATAL_FAILURE(open()); }

    void TearDown() override {
        device.silent = false;
        domain.reset();
        unit.reset();
        EXPECT_EQ(pool.units_in_use(), 0U);
    }

    void open() {
        domain.reset();
        unit.reset();
        auto opened = try_open();
        ASSERT_TRUE(opened) << opened.error();
        unit = std::move(*opened);
        auto created = VirtioDomain::create(*unit);
        ASSERT_TRUE(created) << created.error();
        domain = std::move(*created);
    }

    [[nodiscard]] Result<std::unique_ptr<VirtioUnit>> try_open() {
        return VirtioUnit::open(device, pool, {.layout = FakeVirtio::layout, .reserved = messages});
    }

    [[nodiscard]] ErrorCode refusal() {
        domain.reset();
        unit.reset();
        const auto opened = try_open();
        return opened ? ErrorCode::overlap : opened.error().code();
    }

    void map(std::uint64_t start, ByteCount size) {
        const auto done = domain->map(Iova(start), size, PhysicalAddress(0x5000), read_write);
        ASSERT_TRUE(done) << done.error();
    }

    /// What the device has of the domain.
    [[nodiscard]] Mappings mapped() const {
        const auto found = device.domains.find(domain->number());
        return found == device.domains.end() ? Mappings() : found->second.mappings;
    }

    std::vector<fault::Record> faults(std::uint64_t lost = 0) {
        std::vector<fault::Record> found;
        auto keep = [&](const fault::Record& each) { found.push_back(each); };
        EXPECT_EQ(unit->take_faults(keep), lost);
        return found;
    }

    struct alignas(4096) Bytes : std::array<std::byte, tables * 4096> {};

    std::unique_ptr<Bytes> bytes = std::make_unique<Bytes>();
    std::array<TableHeader, tables> headers;
    VirtioPool pool{*bytes, PhysicalAddress(0x100000), headers, 12};
    FakeVirtio device{pool};
    std::unique_ptr<VirtioUnit> unit;
    std::unique_ptr<VirtioDomain> domain;
};

TEST_F(VirtioTest, blocks_functions_until_it_ends) {
    EXPECT_TRUE(device.blocks_unattached());
    EXPECT_EQ(device.status(), 1U | 2 | 4 | 8);
    domain.reset();
    unit.reset();
    EXPECT_EQ(device.status(), 0U);
}

TEST_F(VirtioTest, refuses_devices_that_lack_something) {
    const std::uint64_t all = device.features;
    for (const unsigned needed : {2U, 6U, 32U}) {
        device.features = all & ~bit(needed);
        EXPECT_EQ(refusal(), ErrorCode::unsupported) << needed;
    }
    device.features = all;
    device.refuses_features = true;
    EXPECT_EQ(refusal(), ErrorCode::unsupported);
    device.refuses_features = false;
    device.queue_slots = 64;
    EXPECT_EQ(refusal(), ErrorCode::unsupported);
    device.queue_slots = 128;
    device.put<std::uint64_t>(FakeVirtio::layout.device, ~low_bits(16));
    EXPECT_EQ(refusal(), ErrorCode::unsupported);
    device.present = false;
    EXPECT_EQ(refusal(), ErrorCode::unsupported);
    device.present = true;
}

TEST_F(VirtioTest, needs_four_pages) {
    std::vector<PhysicalAddress> taken;
    domain.reset();
    unit.reset();
    for (std::size_t i = 0; i + 3 < tables; ++i)
        taken.push_back(*pool.allocate(12));
    EXPECT_EQ(refusal(), ErrorCode::no_memory);
    for (const PhysicalAddress each : taken)
        pool.release(each, 12);
}

TEST_F(VirtioTest, gives_the_device_mappings_with_the_first_function) {
    map(0x1000, 8_KiB);
    map(0x8000, 4_KiB);
    EXPECT_TRUE(device.domains.empty());
    ASSERT_TRUE(domain->attach(function));
    const Mappings both = {{0x1000, 0x2fff}, {0x8000, 0x8fff}};
    EXPECT_EQ(mapped(), both);
    ASSERT_TRUE(domain->attach(function + 1));
    EXPECT_EQ(mapped(), both);
    map(0x3000, 4_KiB);
    EXPECT_EQ(mapped().size(), 3U);
    ASSERT_TRUE(unit->detach(function));
    ASSERT_TRUE(unit->detach(function + 1));
    EXPECT_TRUE(device.domains.empty()) << "it forgets a domain without functions";
    ASSERT_TRUE(domain->unmap(Iova(0x8000), 4_KiB));
    ASSERT_TRUE(domain->attach(function));
    EXPECT_EQ(mapped(), (Mappings{{0x1000, 0x2fff}, {0x3000, 0x3fff}}));
    ASSERT_TRUE(unit->detach(function));
}

TEST_F(VirtioTest, unmaps_whole_mappings_and_skips_holes) {
    ASSERT_TRUE(domain->attach(function));
    map(0x1000, 8_KiB);
    map(0x8000, 4_KiB);
    for (const std::uint64_t part : {0x1000, 0x2000})
        EXPECT_EQ(domain->unmap(Iova(part), 4_KiB).error().code(), ErrorCode::unsupported);
    EXPECT_EQ(domain->map(Iova(0x2000), 8_KiB, PhysicalAddress(0), read_write).error().code(),
              ErrorCode::overlap);
    EXPECT_EQ(mapped().size(), 2U);
    ASSERT_TRUE(domain->unmap(Iova(0x10000), 4_KiB));
    ASSERT_TRUE(domain->unmap(Iova(0), 64_KiB));
    EXPECT_TRUE(mapped().empty());
    ASSERT_TRUE(unit->detach(function));
}

TEST_F(VirtioTest, refuses_what_its_limits_exclude) {
    const auto error = [&](std::uint64_t start, std::uint64_t size, Attributes attributes) {
        const auto done =
            domain->map(Iova(start), ByteCount(size), PhysicalAddress(0x1000), attributes);
        return done ? ErrorCode::busy : done.error().code();
    };
    EXPECT_EQ(error(0x1001, 4096, read_write), ErrorCode::unaligned);
    EXPECT_EQ(error(0x1000, 100, read_write), ErrorCode::unaligned);
    EXPECT_EQ(error(0x1000, 0, read_write), ErrorCode::empty);
    EXPECT_EQ(error(bit(48), 4096, read_write), ErrorCode::out_of_range);
    EXPECT_EQ(error(0xfeeff000, 4096, read_write), ErrorCode::overlap);
    EXPECT_EQ(error(0x1000, 4096, read_write | Attributes::special), ErrorCode::unsupported);
}

TEST_F(VirtioTest, has_as_many_domains_as_the_device) {
    std::vector<std::unique_ptr<VirtioDomain>> more;
    for (int i = 0; i != 3; ++i)
        more.push_back(*VirtioDomain::create(*unit));
    EXPECT_EQ(VirtioDomain::create(*unit).error().code(), ErrorCode::limit);
    more.erase(more.begin());
    const auto again = VirtioDomain::create(*unit);
    ASSERT_TRUE(again);
    EXPECT_EQ((*again)->number(), 1U);
}

TEST_F(VirtioTest, bears_any_limits_of_the_device) {
    using namespace iommu::virtio;
    constexpr std::array<std::uint64_t, 8> numbers = {
        0, 1, 0xfff, 0x1000, 0x7fff'ffff'f000, low_bits(48), bit(48), ~std::uint64_t{0}};
    unsigned mapped_somewhere = 0;
    for (const std::uint64_t first : numbers)
        for (const std::uint64_t last : numbers) {
            domain.reset();
            unit.reset();
            const std::uint64_t at = FakeVirtio::layout.device;
            device.put(at + config::first_input, first);
            device.put(at + config::last_input, last);
            device.put(at + config::first_domain, static_cast<std::uint32_t>(first));
            device.put(at + config::last_domain, static_cast<std::uint32_t>(last));
            auto opened = try_open();
            ASSERT_TRUE(opened);
            unit = std::move(*opened);
            auto created = VirtioDomain::create(*unit);
            EXPECT_EQ(created.has_value(),
                      static_cast<std::uint32_t>(first) <= static_cast<std::uint32_t>(last));
            if (!created)
                continue;
            domain = std::move(*created);
            const Iova start = domain->limits().aperture.start();
            const bool room = domain->limits().aperture.size() >= 4_KiB;
            EXPECT_EQ(domain->map(start, 4_KiB, PhysicalAddress(0), read_write).has_value(), room);
            mapped_somewhere += room ? 1 : 0;
        }
    EXPECT_NE(mapped_somewhere, 0U);
}

TEST_F(VirtioTest, knows_each_function_once) {
    ASSERT_TRUE(domain->attach(function));
    EXPECT_EQ(domain->attach(function).error().code(), ErrorCode::busy);
    EXPECT_EQ(unit->detach(function + 1).error().code(), ErrorCode::not_found);
    ASSERT_TRUE(unit->detach(function));
    device.wrong_statuses = {6};
    EXPECT_EQ(domain->attach(function).error().code(), ErrorCode::not_found);
    ASSERT_TRUE(domain->attach(function)) << "the refusal changed nothing";
    ASSERT_TRUE(unit->detach(function));
}

TEST_F(VirtioTest, detaches_again_if_a_mapping_does_not_fit) {
    map(0x1000, 4_KiB);
    map(0x8000, 4_KiB);
    device.wrong_statuses = {0, 0, 8};
    EXPECT_EQ(domain->attach(function).error().code(), ErrorCode::no_memory);
    EXPECT_TRUE(device.domains.empty());
    ASSERT_TRUE(domain->attach(function));
    EXPECT_EQ(mapped().size(), 2U);
    ASSERT_TRUE(unit->detach(function));
}

TEST_F(VirtioTest, fails_for_good_without_an_answer) {
    ASSERT_TRUE(domain->attach(function));
    map(0x1000, 4_KiB);
    device.silent = true;
    EXPECT_EQ(domain->unmap(Iova(0x1000), 4_KiB).error().code(), ErrorCode::io);
    device.silent = false;
    EXPECT_EQ(domain->unmap(Iova(0x1000), 4_KiB).error().code(), ErrorCode::io);
    EXPECT_EQ(domain->map(Iova(0x2000), 4_KiB, PhysicalAddress(0), read_write).error().code(),
              ErrorCode::io);
}

TEST_F(VirtioTest, fails_for_good_where_the_device_refuses_or_writes_no_status) {
    for (const std::uint8_t status : {1, 4, 5, 0x7f, 0xff}) {
        ASSERT_NO_FATAL_FAILURE(open());
        ASSERT_TRUE(domain->attach(function));
        map(0x1000, 4_KiB);
        device.wrong_statuses = {status};
        EXPECT_EQ(domain->unmap(Iova(0x1000), 4_KiB).error().code(), ErrorCode::io) << +status;
        EXPECT_EQ(unit->detach(function).error().code(), ErrorCode::io);
    }
}

TEST_F(VirtioTest, decodes_reports_in_order_beyond_the_length_of_its_queue) {
    for (std::uint64_t i = 0; i != 400; ++i) {
        ASSERT_TRUE(device.report({2 | (bit(8) | bit(1)) << 32, function, 0x1000 + i}));
        if (i % 3 != 2)
            continue;
        const auto found = faults();
        ASSERT_EQ(found.size(), 3U) << i;
        EXPECT_EQ(found[2], (fault::Record{.source = fault::Source::requester(function),
                                           .access = fault::Access::write,
                                           .precision = fault::Precision::start,
                                           .reason = fault::Reason::permission,
                                           .where = IovaRange(Iova(0x1000 + i), ByteCount(1)),
                                           .code = 2}));
    }
    (void)faults();
    ASSERT_TRUE(device.report({1, 0x12345678, 0}));
    const auto found = faults();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].source, fault::Source::endpoint(0x12345678));
    EXPECT_EQ(found[0].precision, fault::Precision::none);
    EXPECT_EQ(found[0].reason, fault::Reason::not_attached);
}

TEST_F(VirtioTest, counts_a_full_queue_as_a_loss) {
    std::size_t reported = 0;
    while (device.report({2, function, 0}))
        ++reported;
    EXPECT_EQ(faults(1).size(), reported);
    EXPECT_TRUE(faults().empty());
    for (std::size_t i = 1; i != reported; ++i)
        ASSERT_TRUE(device.report({2, function, 0}));
    EXPECT_EQ(faults().size(), reported - 1);
}

TEST_F(VirtioTest, drops_reports_that_are_too_short_and_heads_that_do_not_exist) {
    ASSERT_TRUE(device.report({2, function, 0}, 23));
    EXPECT_TRUE(faults().empty());
    for (int i = 0; i != 1000; ++i)
        device.use(1, 0xffffffff, 24);
    std::size_t decoded = 0;
    auto count = [&](const fault::Record&) { ++decoded; };
    for (int i = 0; i != 20; ++i)
        (void)unit->take_faults(count);
    EXPECT_EQ(decoded, 0U);
    ASSERT_TRUE(device.report({2, function, 0}));
    EXPECT_EQ(faults().size(), 1U);
}

} // namespace
} // namespace moat::tests
