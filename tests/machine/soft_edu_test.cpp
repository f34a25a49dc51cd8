// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The edu model: its correct behaviour, and the outside view of each misdeed.
#include "machine/soft/edu.hpp"
#include "sanitized.hpp"
#include "soft.hpp"

#include <gtest/gtest.h>
#include <random>

namespace moat::machine::soft {

namespace {

using fault::Kind;

constexpr std::uint64_t buffer_iova = 0x100000;
constexpr std::uint64_t size = 4096;

class SoftEdu : public testing::Test {
  protected:
    void transfer(std::uint64_t from, std::uint64_t to, std::uint64_t count,
                  std::uint64_t command) {
        system.registers().write64(0x80, from);
        system.registers().write64(0x88, to);
        system.registers().write64(0x90, count);
        system.registers().write32(0x98, static_cast<std::uint32_t>(command) | 1);
        system.run();
        EXPECT_EQ(system.registers().read32(0x98) & 1, 0U) << "the device says that it is done";
    }

    void to_device(std::uint64_t from, std::uint64_t count) {
        transfer(from, Edu::buffer_start, count, 0);
    }

    void to_memory(std::uint64_t to, std::uint64_t count) {
        transfer(Edu::buffer_start, to, count, 2);
    }

    [[nodiscard]] static std::size_t strays_in(const Mapped& mapped) {
        return static_cast<std::size_t>(std::ranges::count(mapped.bytes(), stray_byte));
    }

    Edu edu;
    System system{edu};
};

TEST_F(SoftEdu, is_that_device) {
    ASSERT_EQ(system.machine().functions().size(), 1U);
    EXPECT_EQ(system.function().config().read32(0), 0x11e81234U);
    EXPECT_EQ(system.registers().read32(0), 0x010000edU);
    system.registers().write32(4, 0x12345678);
    EXPECT_EQ(system.registers().read32(4), ~0x12345678U);
}

TEST_F(SoftEdu, computes_factorials_and_interrupts) {
    ASSERT_EQ(need(system.function().enable_interrupts(4)), 1U);
    system.registers().write32(0x20, 0x80);
    system.registers().write32(8, 10);
    EXPECT_EQ(system.registers().read32(0x20) & 1, 1U);
    EXPECT_FALSE(system.function().take_interrupt(0));
    system.run();
    EXPECT_EQ(system.registers().read32(8), 3628800U);
    EXPECT_TRUE(system.function().take_interrupt(0));
    EXPECT_FALSE(system.function().take_interrupt(0));
    EXPECT_EQ(system.registers().read32(0x24), 1U);
    system.registers().write32(0x64, 1);
    EXPECT_EQ(system.registers().read32(0x24), 0U);
}

TEST_F(SoftEdu, moves_data_both_ways) {
    const Mapped from = system.map(buffer_iova, size, "from", fault::Allows::read);
    const Mapped to = system.map(buffer_iova + 0x10000, size, "to", fault::Allows::write);
    std::mt19937 random(1);
    for (std::byte& each : from.bytes())
        each = static_cast<std::byte>(random());
    to_device(from.iova.value(), size);
    to_memory(to.iova.value(), size);
    EXPECT_TRUE(std::ranges::equal(from.bytes(), to.bytes()));
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftEdu, reaches_nothing_unless_it_may_master_the_bus) {
    const Mapped to = system.map(buffer_iova, size, "to");
    std::ranges::fill(to.bytes(), std::byte{1});
    system.function().set_bus_master(false);
    to_memory(buffer_iova, size);
    EXPECT_TRUE(
        std::ranges::all_of(to.bytes(), [](std::byte each) { return each == std::byte{1}; }));
}

TEST_F(SoftEdu, does_nothing_outside_of_its_own_buffer) {
    const Mapped to = system.map(buffer_iova, size, "to");
    std::ranges::fill(to.bytes(), std::byte{1});
    for (const auto& [from, count] : {std::pair{Edu::buffer_start + 1, size},
                                      {0UL, 8UL},
                                      {Edu::buffer_start, ~0UL},
                                      {Edu::buffer_start - 1, 8UL}})
        transfer(from, buffer_iova, count, 2);
    EXPECT_TRUE(
        std::ranges::all_of(to.bytes(), [](std::byte each) { return each == std::byte{1}; }));
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftEdu, overrun_hits_the_neighbour_in_silence_without_a_guard) {
    system.map(buffer_iova, size, "buffer");
    const Mapped neighbour = system.map(buffer_iova + size, size, "neighbour");
    edu.misbehave({Misdeed::overrun, 100});
    to_memory(buffer_iova, size);
    EXPECT_EQ(strays_in(neighbour), 100U);
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftEdu, overrun_is_caught_by_a_guard) {
    system.map(buffer_iova, size, "buffer");
    const Mapped neighbour = system.map(buffer_iova + 2 * size, size, "neighbour");
    edu.misbehave({Misdeed::overrun, 100});
    to_memory(buffer_iova, size);
    EXPECT_EQ(strays_in(neighbour), 0U);
    const auto faults = system.faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].kind, Kind::out_of_bounds_right);
    EXPECT_EQ(faults[0].mapping->label, "buffer");
    EXPECT_EQ(faults[0].distance.least, 1U);
    EXPECT_EQ(faults[0].bytes_outside, 100U);
}

TEST_F(SoftEdu, underrun_is_caught_by_a_guard) {
    system.map(buffer_iova, size, "buffer");
    edu.misbehave({Misdeed::underrun, 16});
    to_device(buffer_iova, size);
    const auto faults = system.faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].kind, Kind::out_of_bounds_left);
    EXPECT_EQ(faults[0].record.access, fault::Access::read);
    EXPECT_EQ(faults[0].bytes_outside, 16U);
}

TEST_F(SoftEdu, write_after_completion_is_a_use_after_unmap) {
    const Mapped buffer = system.map(buffer_iova, size, "buffer");
    edu.misbehave({Misdeed::write_after_completion, 32});
    system.registers().write64(0x80, Edu::buffer_start);
    system.registers().write64(0x88, buffer_iova);
    system.registers().write64(0x90, size);
    system.registers().write32(0x98, 3);
    const auto done = [&] { return (system.registers().read32(0x98) & 1) == 0; };
    ASSERT_EQ(system.machine().wait_until(done, std::chrono::seconds(1)), Wait::happened);
    system.unmap(buffer);
    system.run();
    const auto faults = system.faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].kind, Kind::use_after_unmap);
    EXPECT_EQ(faults[0].past->mapping.label, "buffer");
    EXPECT_EQ(faults[0].side, fault::Side::inside);
    EXPECT_EQ(strays_in(buffer), 0U);
}

TEST_F(SoftEdu, stale_address_is_a_use_after_unmap) {
    const Mapped before = system.map(buffer_iova, size, "before");
    const Mapped now = system.map(buffer_iova + 0x10000, size, "now");
    to_memory(before.iova.value(), size);
    system.unmap(before);
    edu.misbehave({Misdeed::stale_address});
    to_memory(now.iova.value(), size);
    const auto faults = system.faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].kind, Kind::use_after_unmap);
    EXPECT_EQ(faults[0].past->mapping.label, "before");
}

TEST_F(SoftEdu, write_to_a_read_only_buffer_is_refused) {
    const Mapped buffer = system.map(buffer_iova, size, "buffer", fault::Allows::read);
    edu.misbehave({Misdeed::read_only_violated, 8});
    to_device(buffer_iova, size);
    const auto faults = system.faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].kind, Kind::permission);
    EXPECT_EQ(faults[0].record.reason, fault::Reason::permission);
    EXPECT_EQ(strays_in(buffer), 0U);
}

TEST_F(SoftEdu, wrong_length_leaves_the_end_as_it_was) {
    const Mapped buffer = system.map(buffer_iova, size, "buffer");
    std::ranges::fill(buffer.bytes(), std::byte{1});
    edu.misbehave({Misdeed::wrong_length, 100});
    to_memory(buffer_iova, size);
    EXPECT_EQ(std::ranges::count(buffer.bytes(), std::byte{1}), 100);
    EXPECT_TRUE(system.faults().empty());
}

/// After any writes to its registers, the device becomes idle again, reaches only mapped memory,
/// and works after a reset.
TEST_F(SoftEdu, any_registers_leave_it_idle_and_working) {
    const std::uint64_t seed = 3;
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const Mapped buffer = system.map(buffer_iova, size, "buffer");
    const auto number_like = [&]() -> std::uint64_t {
        switch (random() % 4) {
        case 0:
            return buffer_iova + random() % size;
        case 1:
            return Edu::buffer_start + random() % size;
        case 2:
            return random() % 64;
        default:
            return random() >> (random() % 64);
        }
    };
    std::uint64_t refused = 0;
    for (int round = 0; round != (tests::sanitized ? 2'000 : 20'000); ++round) {
        edu.misbehave({static_cast<Misdeed>(random() % 7), number_like()});
        for (int write = 0; write != 4; ++write) {
            const std::uint64_t offset = random() % 0x100 & ~7ULL;
            system.registers().write64(offset, number_like());
            system.registers().write32(offset + 4, static_cast<std::uint32_t>(number_like()));
        }
        for (const std::uint64_t offset : {0x80, 0x88, 0x90})
            system.registers().write64(offset, number_like());
        system.registers().write32(0x98, static_cast<std::uint32_t>(random()) | 1);
        system.run();
        ASSERT_EQ(system.registers().read32(0x98) & 1, 0U) << "round " << round;
        ASSERT_EQ(system.registers().read32(0x20) & 1, 0U) << "round " << round;
        for (const fault::Diagnosis& each : system.faults()) {
            ASSERT_FALSE(
                IovaRange(buffer.iova, ByteCount(size)).contains(each.record.where.start()))
                << "round " << round;
            ++refused;
        }
    }
    EXPECT_NE(edu.misdeeds(), 0U);
    EXPECT_NE(strays_in(buffer), 0U);
    EXPECT_NE(refused, 0U);

    edu.misbehave({});
    need(system.function().reset());
    system.function().set_bus_master(true);
    std::ranges::fill(buffer.bytes().first(size / 2), std::byte{7});
    std::ranges::fill(buffer.bytes().subspan(size / 2), std::byte{0});
    to_device(buffer_iova, size / 2);
    to_memory(buffer_iova + size / 2, size / 2);
    EXPECT_EQ(std::ranges::count(buffer.bytes(), std::byte{7}), static_cast<std::ptrdiff_t>(size));
    EXPECT_TRUE(system.faults().empty());
}

} // namespace

} // namespace moat::machine::soft
