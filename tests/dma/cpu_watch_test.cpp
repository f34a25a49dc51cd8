// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The CPU's accesses under a memory checker: AddressSanitizer in the build with it, and valgrind's
// memcheck, under which CMakeLists.txt runs this program again.
#include "moat/core/text.hpp"

#include "dma/reporter.hpp"
#include "platform/stack.hpp"
#include "space_system.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define VALGRIND_COUNT_ERRORS 0
#endif

namespace moat::tests {

namespace {

using namespace literals;
using namespace dma;

std::size_t capture(std::span<std::uintptr_t> frames) {
    return platform::capture_stack(frames);
}

/// Not folded away, and with its own name in a stack.
[[gnu::noinline]] int cpu_reads(const std::byte* at) {
    return static_cast<int>(*static_cast<const volatile std::byte*>(at));
}

[[gnu::noinline]] void cpu_writes(std::byte* at, int value) {
    *static_cast<volatile std::byte*>(at) = static_cast<std::byte>(value);
}

using HeapBytes = std::unique_ptr<std::byte, decltype(&std::free)>;

[[gnu::noinline]] HeapBytes heap_bytes(std::size_t size) {
    return {static_cast<std::byte*>(std::malloc(size)), &std::free};
}

/// The memory's address for a domain with the CPU's page size.
Memory first_of(const HeapBytes& bytes, std::size_t size) {
    return Memory::own({bytes.get(), size});
}

class CpuWatched : public testing::TestWithParam<Level> {
  protected:
    void SetUp() override {
        if (!cpu_watch::present())
            GTEST_SKIP() << "SKIPPED: no memory checker is in this build";
    }

    [[nodiscard]] std::unique_ptr<SoftSpace> space_over(SoftDomain& below, CpuWatch cpu) {
        return *SoftSpace::create(below, {.options = {.level = GetParam(), .cpu = cpu},
                                          .listener = heard.listener(),
                                          .capture = capture,
                                          .pages = own_pages()});
    }

    OwnTables tables;
    SoftDomain domain{empty_table(tables)};
    SoftIommu iommu;
    Heard heard;
    std::unique_ptr<SoftSpace> space = space_over(domain, CpuWatch::asan);
    Lane lane{**iommu.add_device(nic)};
    HeapBytes bytes = heap_bytes(9000);
};

/// A read that comes too early. Memcheck reports it and continues; ASan ends the process.
void expect_stopped(const std::function<void()>& access, const char* label) {
    if (address_sanitized) {
        EXPECT_DEATH(access(), std::string("use-after-poison(.|\n)*cpu_(reads|writes)(.|\n)*"
                                           "moat: the CPU touched byte [0-9]+ of \"") +
                                   label + "\"");
        return;
    }
    const auto before = VALGRIND_COUNT_ERRORS;
    access();
    EXPECT_EQ(VALGRIND_COUNT_ERRORS, before + 1);
}

TEST_P(CpuWatched, the_cpu_is_stopped_at_bytes_that_the_device_owns) {
    for (const std::size_t size : {128U, 8192U}) {
        for (const Direction direction : {Direction::from_device, Direction::bidirectional}) {
            const Iova iova = *space->map(first_of(bytes, size), direction, "rx ring");
            expect_stopped([&] { (void)cpu_reads(bytes.get() + 64); }, "rx ring");
            expect_stopped([&] { cpu_writes(bytes.get() + size - 1, 1); }, "rx ring");
            ASSERT_TRUE(space->sync_for_cpu(iova, 0_B, 64_B));
            (void)cpu_reads(bytes.get());
            expect_stopped([&] { (void)cpu_reads(bytes.get() + 64); }, "rx ring");
            ASSERT_TRUE(space->sync_for_device(iova, 0_B, 64_B));
            expect_stopped([&] { (void)cpu_reads(bytes.get()); }, "rx ring");
            ASSERT_TRUE(space->unmap(iova, ByteCount(size), direction));
            (void)cpu_reads(bytes.get() + 64);
        }
    }
    // Memcheck allows the write, and moat reports it as well.
    EXPECT_EQ(heard.errors.empty(), address_sanitized);
}

TEST_P(CpuWatched, what_the_device_does_meanwhile_is_its_own_affair) {
    ASSERT_TRUE(iommu.attach(nic, domain));
    const Iova iova = *space->map(first_of(bytes, 8192), Direction::from_device, "rx");
    ASSERT_TRUE(lane.write(iova, std::vector<std::byte>(8192, std::byte{7})).complete());
    ASSERT_TRUE(space->sync_for_cpu(iova, 0_B, 8192_B));
    EXPECT_EQ(cpu_reads(bytes.get() + 8191), 7);
    ASSERT_TRUE(space->unmap(iova, 8192_B, Direction::from_device));
    EXPECT_TRUE(heard.errors.empty());
}

TEST_P(CpuWatched, what_the_cpu_may_touch_is_open) {
    const Iova commands = *space->map(first_of(bytes, 4096), Direction::to_device, "commands");
    (void)cpu_reads(bytes.get());
    ASSERT_TRUE(space->unmap(commands, 4096_B, Direction::to_device));
    const Buffer page(4096);
    const Iova ring = *space->map_coherent(Memory::own(page.bytes()), "coherent ring");
    cpu_writes(page.data(), 1);
    ASSERT_TRUE(space->unmap(ring, 4096_B, Direction::bidirectional));
    OwnTables others;
    SoftDomain other(empty_table(others));
    const auto unwatched = space_over(other, CpuWatch::off);
    const Iova off = *unwatched->map(first_of(bytes, 8192), Direction::from_device, "off");
    (void)cpu_reads(bytes.get());
    ASSERT_TRUE(unwatched->unmap(off, 8192_B, Direction::from_device));
    EXPECT_TRUE(heard.errors.empty());
}

TEST_P(CpuWatched, memory_that_is_not_wholly_addressable_is_not_mapped) {
    const HeapBytes block = heap_bytes(4000);
    const auto refused = space->map(first_of(block, 4096), Direction::to_device, "too long");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::out_of_range);
    ASSERT_EQ(heard.errors.size(), 1U);
    EXPECT_EQ(heard.errors[0].kind, DriverErrorKind::not_addressable);
    EXPECT_EQ(space->stats().live_ranges, 0U);
    if (!address_sanitized)
        return; // memcheck's client requests do not describe blocks
    EXPECT_EQ(summary(heard.errors[0]),
              "not-addressable: \"too long\" maps 4096 bytes of a 4000-byte heap block");
    EXPECT_EQ(heard.errors[0].block.size, 4000_B);
    EXPECT_FALSE(heard.errors[0].block.allocated.empty());
}

TEST_P(CpuWatched, a_second_mapping_of_the_memory_is_not_taken_for_bad_memory) {
    const Iova one = *space->map(first_of(bytes, 4096), Direction::from_device, "one");
    const auto two = space->map(first_of(bytes, 4096), Direction::from_device, "two");
    ASSERT_TRUE(two);
    EXPECT_EQ(heard.errors.size(), GetParam() == Level::exact ? 1U : 0U);
    ASSERT_TRUE(space->unmap(one, 4096_B, Direction::from_device));
    ASSERT_TRUE(space->unmap(*two, 4096_B, Direction::from_device));
}

TEST_P(CpuWatched, a_second_mapping_that_is_longer_than_the_memory_is_refused) {
    const HeapBytes block = heap_bytes(256);
    const Iova one = *space->map(first_of(block, 256), Direction::from_device, "one");
    const auto two = space->map(first_of(block, 300), Direction::to_device, "too long");
    EXPECT_FALSE(two);
    ASSERT_EQ(heard.errors.size(), 1U);
    EXPECT_EQ(heard.errors[0].kind, DriverErrorKind::not_addressable);
    ASSERT_TRUE(space->unmap(one, 256_B, Direction::from_device));
}

TEST_P(CpuWatched, memory_that_is_freed_while_mapped_is_reported_and_fenced_off) {
    if (!address_sanitized)
        GTEST_SKIP() << "SKIPPED: memcheck has no hook for free()";
    ASSERT_TRUE(iommu.attach(nic, domain));
    for (const std::size_t size : {128U, 8192U})
        for (const Direction direction : {Direction::to_device, Direction::from_device}) {
            heard.errors.clear();
            HeapBytes block = heap_bytes(size);
            const Iova iova = *space->map(first_of(block, size), direction, "freed early");
            block.reset();
            ASSERT_EQ(heard.errors.size(), 1U);
            const DriverError& said = heard.errors[0];
            EXPECT_EQ(said.kind, DriverErrorKind::freed);
            EXPECT_EQ(said.mapping.label, "freed early");
            EXPECT_EQ(said.block.size, ByteCount(size));
            EXPECT_FALSE(said.when.stack.empty()) << "who freed it";
            EXPECT_FALSE(said.mapping.mapped.stack.empty()) << "who mapped it";
            EXPECT_NE(text_report(said).find("\nmapped"), std::string::npos);
            std::vector<std::byte> data(8);
            EXPECT_FALSE(lane.write(iova, data).complete()) << "no device reaches it";
            EXPECT_FALSE(lane.read(iova, data).complete());
            EXPECT_TRUE(space->sync_for_cpu(iova, 0_B, 8_B));
            EXPECT_TRUE(space->unmap(iova, ByteCount(size), direction));
            EXPECT_EQ(heard.errors.size(), 1U) << "reported once";
        }
    EXPECT_EQ(space->stats().live_ranges, 0U);
}

TEST_P(CpuWatched, a_listener_may_map_and_unmap_when_memory_is_freed) {
    if (!address_sanitized)
        GTEST_SKIP() << "SKIPPED: memcheck has no hook for free()";

    struct Driver {
        SoftSpace* space = nullptr;
        Iova iova = {};
        std::byte* other = nullptr;
        int calls = 0;
    } driver;

    OwnTables others;
    SoftDomain other(empty_table(others));
    const auto own = *SoftSpace::create(
        other,
        {.options = {.level = GetParam()},
         .listener = {nullptr,
                      [](void* context, const DriverError&) noexcept {
                          auto& self = *static_cast<Driver*>(context);
                          ++self.calls;
                          EXPECT_TRUE(self.space->unmap(self.iova, 256_B, Direction::from_device));
                          const auto next = self.space->map(Memory::own({self.other, 256}),
                                                            Direction::from_device, "next");
                          EXPECT_TRUE(self.space->unmap(*next, 256_B, Direction::from_device));
                      },
                      &driver},
         .pages = own_pages()});
    driver.space = own.get();
    driver.other = bytes.get();
    HeapBytes block = heap_bytes(256);
    driver.iova = *own->map(first_of(block, 256), Direction::from_device, "freed");
    block.reset();
    EXPECT_EQ(driver.calls, 1);
}

TEST_P(CpuWatched, threads_free_memory_while_others_map_and_unmap_it) {
    constexpr int rounds = 3000;
    const auto work = [&] {
        for (int i = 0; i != rounds; ++i) {
            HeapBytes block = heap_bytes(512);
            const Iova iova = *space->map(first_of(block, 256), Direction::from_device, "own");
            if (i % 8 == 0 && address_sanitized)
                block.reset(); // while it is mapped
            EXPECT_TRUE(space->unmap(iova, 256_B, Direction::from_device));
        }
    };
    std::atomic<int> freed{0};
    Heard unused;
    OwnTables own_tables;
    SoftDomain own_domain(empty_table(own_tables));
    space = *SoftSpace::create(own_domain,
                               {.options = {.level = GetParam()},
                                .listener = {nullptr,
                                             [](void* count, const DriverError& error) noexcept {
                                                 EXPECT_EQ(error.kind, DriverErrorKind::freed);
                                                 ++*static_cast<std::atomic<int>*>(count);
                                             },
                                             &freed},
                                .pages = own_pages()});
    {
        const std::jthread one(work);
        const std::jthread other(work);
    }
    EXPECT_EQ(freed, address_sanitized ? 2 * rounds / 8 : 0);
    space.reset();
}

TEST_P(CpuWatched, correct_operations_are_silent) {
    if (!address_sanitized)
        GTEST_SKIP() << "SKIPPED: too slow under memcheck; AddressSanitizer's build does it";
    ASSERT_TRUE(iommu.attach(nic, domain));
    std::mt19937 random(1);
    std::vector<std::byte> data(8192);
    for (int i = 0; i != 20'000; ++i) {
        const std::size_t size = 1 + random() % (random() % 16 == 0 ? 8192 : 512);
        const auto direction = static_cast<Direction>(random() % 3);
        const Iova iova = *space->map(first_of(bytes, size), direction, "x");
        const std::span<std::byte> moved = std::span(data).first(size);
        ASSERT_TRUE(
            (direction == Direction::to_device ? lane.read(iova, moved) : lane.write(iova, moved))
                .complete());
        const std::size_t part = random() % size;
        ASSERT_TRUE(space->sync_for_cpu(iova, ByteCount(part), 1_B));
        cpu_writes(bytes.get() + part, i);
        ASSERT_TRUE(space->sync_for_device(iova, ByteCount(part), 1_B));
        ASSERT_TRUE(space->unmap(iova, ByteCount(size), direction));
        cpu_writes(bytes.get() + size - 1, i);
    }
    EXPECT_TRUE(heard.errors.empty()) << summary(heard.errors[0]);
    EXPECT_TRUE(heard.faults.empty());
}

INSTANTIATE_TEST_SUITE_P(Levels, CpuWatched, testing::Values(Level::track, Level::exact),
                         [](const testing::TestParamInfo<Level>& each) {
                             return each.param == Level::track ? "track" : "exact";
                         });

TEST(CpuWatch, is_found_where_it_is) {
    EXPECT_EQ(cpu_watch::present(),
              address_sanitized || std::getenv("MOAT_TEST_MEMCHECK") != nullptr);
}

} // namespace

} // namespace moat::tests
