// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A soft function's face: BAR sizing, capabilities, MSI-X, accesses of any form, resets,
// malfunctions.
#include "machine/soft/face.hpp"

#include <array>
#include <bit>
#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace moat::machine::soft {

namespace {

/// A device that notes the accesses to its registers, and raises an interrupt in each step.
class Noting final : public DeviceModel {
  public:
    using Access = std::tuple<unsigned, std::uint64_t, Width>;

    explicit Noting(const FunctionInfo& info, unsigned vectors = 3)
        : info_(info), vectors_(vectors) {}

    [[nodiscard]] FunctionInfo info() const override { return info_; }

    [[nodiscard]] unsigned vectors() const override { return vectors_; }

    [[nodiscard]] std::uint64_t read(unsigned bar, std::uint64_t offset, Width width) override {
        reads.emplace_back(bar, offset, width);
        return 0x0807060504030201 * (offset % 2 + 1);
    }

    void write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) override {
        writes.emplace_back(bar, offset, width);
        for (unsigned byte = 0; byte != static_cast<unsigned>(width); ++byte)
            written[offset + byte] = static_cast<std::uint8_t>(value >> 8 * byte);
    }

    [[nodiscard]] bool step(BusMaster& bus) override {
        bus.interrupt(1);
        return true;
    }

    void reset() override { ++resets; }

    std::vector<Access> reads;
    std::vector<Access> writes;
    std::map<std::uint64_t, std::uint8_t> written;
    unsigned resets = 0;

  private:
    FunctionInfo info_;
    unsigned vectors_;
};

class CountingBus final : public BusMaster {
  public:
    [[nodiscard]] ByteCount read(Iova, std::span<std::byte>) override { return {}; }

    [[nodiscard]] ByteCount write(Iova, std::span<const std::byte>) override { return {}; }

    void interrupt(unsigned) override { ++interrupts; }

    unsigned interrupts = 0;
};

[[nodiscard]] FunctionInfo three_bars() {
    FunctionInfo info;
    info.vendor = 0x1234;
    info.device = 0x5678;
    info.class_code = 0x010802;
    info.bars[0] = {.kind = BarKind::memory64, .prefetchable = true, .size = ByteCount(1ULL << 33)};
    info.bars[2] = {.kind = BarKind::memory32, .size = ByteCount(0x100)};
    info.bars[3] = {.kind = BarKind::ports, .size = ByteCount(32)};
    return info;
}

class SoftFace : public testing::Test {
  protected:
    static constexpr unsigned config = Face::config_region;

    template <class T>
    T read(unsigned region, std::uint64_t offset) {
        T value{};
        EXPECT_TRUE(face.read(region, offset, std::as_writable_bytes(std::span(&value, 1))));
        return value;
    }

    template <class T>
    void write(unsigned region, std::uint64_t offset, T value) {
        EXPECT_TRUE(face.write(region, offset, std::as_bytes(std::span(&value, 1))));
    }

    /// Where the capability `id` lies; 0 if it is not in the list.
    unsigned capability(std::uint8_t id) {
        unsigned at = read<std::uint8_t>(config, pci::capabilities);
        for (unsigned seen = 0; at != 0 && seen != 48; ++seen) {
            if (read<std::uint8_t>(config, at) == id)
                return at;
            at = read<std::uint8_t>(config, at + 1);
        }
        return 0;
    }

    Noting model{three_bars()};
    Face face{Bdf(1, 2, 3), model};
    CountingBus bus;
};

TEST_F(SoftFace, has_the_header_of_its_model) {
    EXPECT_EQ(face.info().address, Bdf(1, 2, 3));
    EXPECT_EQ(read<std::uint32_t>(config, 0), 0x56781234U);
    EXPECT_EQ(read<std::uint32_t>(config, 8) >> 8, 0x010802U);
    EXPECT_EQ(read<std::uint8_t>(config, 0x0e), 0) << "one function, a header of type 0";
    EXPECT_EQ(read<std::uint8_t>(config, 0x3d), 1) << "INTA";
    EXPECT_NE(read<std::uint32_t>(config, 0x2c), 0U) << "subsystem";
    EXPECT_EQ(read<std::uint32_t>(config, 0x30), 0U) << "no ROM";
    EXPECT_EQ(read<std::uint32_t>(config, 0x100), 0U) << "no extended capability";
    write<std::uint32_t>(config, 0, 0);
    EXPECT_EQ(read<std::uint32_t>(config, 0), 0x56781234U) << "read-only";
}

TEST_F(SoftFace, reports_the_sizes_of_its_bars) {
    std::array<std::uint32_t, 6> assigned{};
    std::array<std::uint32_t, 6> masks{};
    for (unsigned bar = 0; bar != 6; ++bar) {
        assigned[bar] = read<std::uint32_t>(config, pci::first_bar + 4 * bar);
        write(config, pci::first_bar + 4 * bar, ~0U);
        masks[bar] = read<std::uint32_t>(config, pci::first_bar + 4 * bar);
        write(config, pci::first_bar + 4 * bar, assigned[bar]);
        EXPECT_EQ(read<std::uint32_t>(config, pci::first_bar + 4 * bar), assigned[bar]);
    }
    EXPECT_EQ(masks[0], 0xcU) << "64 bits wide, prefetchable; all of its size is in the upper half";
    EXPECT_EQ(masks[1], ~1U);
    EXPECT_EQ(masks[2], 0xffffff00U);
    EXPECT_EQ(masks[3], 0xffffffe1U);
    EXPECT_EQ(masks[4], 0xfffff000U) << "of MSI-X";
    EXPECT_EQ(masks[5], 0U);
    EXPECT_EQ(assigned[0], 0xcU);
    EXPECT_NE(assigned[1], 0U);
    EXPECT_EQ(assigned[1] % 2, 0U);
    EXPECT_NE(assigned[2] & ~0xfU, assigned[4] & ~0xfU);
}

TEST_F(SoftFace, has_regions_as_vfio_numbers_them) {
    const std::array<std::uint64_t, Face::region_count> sizes = {1ULL << 33, 0, 0x100, 32, 0x1000,
                                                                 0,          0, 4096,  0};
    for (unsigned index = 0; index != Face::region_count; ++index) {
        SCOPED_TRACE(index);
        const Face::Region region = face.region(index);
        EXPECT_EQ(region.size.value(), sizes[index]);
        EXPECT_EQ(region.readable, sizes[index] != 0);
        EXPECT_EQ(region.writable, sizes[index] != 0);
        EXPECT_EQ(region.mappable, index == 0 || index == 4) << "BARs of at least a page";
    }
    EXPECT_EQ(face.interrupts(InterruptKind::intx), 1U);
    EXPECT_EQ(face.interrupts(InterruptKind::msi), 0U);
    EXPECT_EQ(face.interrupts(InterruptKind::msix), 3U);
    EXPECT_EQ(face.interrupts(InterruptKind::error), 1U);
    EXPECT_EQ(face.interrupts(InterruptKind::request), 1U);
}

TEST_F(SoftFace, has_msix_in_a_bar_of_its_own) {
    ASSERT_EQ(face.msix_bar(), 4U);
    const unsigned at = capability(pci::capability_msix);
    ASSERT_NE(at, 0U);
    EXPECT_EQ(read<std::uint16_t>(config, at + 2), 2) << "three vectors, disabled";
    EXPECT_EQ(read<std::uint32_t>(config, at + 4), 4U) << "the table: BAR 4, offset 0";
    EXPECT_EQ(read<std::uint32_t>(config, at + 8), 0x804U) << "the pending bits";
    for (unsigned vector = 0; vector != 3; ++vector)
        EXPECT_EQ(read<std::uint32_t>(4, vector * 16 + 12), 1U) << "masked";
    write<std::uint64_t>(4, 16, 0xfee00000);
    write<std::uint64_t>(4, 24, 0x4041);
    EXPECT_EQ(read<std::uint64_t>(4, 16), 0xfee00000U);
    EXPECT_EQ(read<std::uint64_t>(4, 24), 0x4041U);
    write<std::uint64_t>(4, 44, ~0ULL);
    EXPECT_EQ(read<std::uint64_t>(4, 44), 0xffffffffU) << "the table has three entries";
    write<std::uint64_t>(4, 0x800, ~0ULL);
    EXPECT_EQ(read<std::uint64_t>(4, 0x800), 0U);
    EXPECT_TRUE(model.writes.empty() && model.reads.empty()) << "the model sees nothing of it";

    write<std::uint16_t>(config, at + 2, 0xffff);
    EXPECT_EQ(read<std::uint16_t>(config, at + 2), 2) << "the host's";
    face.show_msix_enabled(true);
    EXPECT_EQ(read<std::uint16_t>(config, at + 2), 0x8002);
    face.show_msix_enabled(false);
    EXPECT_EQ(read<std::uint16_t>(config, at + 2), 2);
}

TEST_F(SoftFace, has_no_msix_where_no_bar_is_free) {
    FunctionInfo info;
    for (const unsigned bar : {0U, 2U, 4U})
        info.bars[bar] = {.kind = BarKind::memory64, .size = ByteCount(4096)};
    Noting full(info);
    Face other(Bdf(), full);
    EXPECT_EQ(other.msix_bar(), std::nullopt);
    EXPECT_EQ(other.interrupts(InterruptKind::msix), 0U);
    std::uint8_t last = 0;
    ASSERT_TRUE(other.read(Face::config_region, 0x41, std::as_writable_bytes(std::span(&last, 1))));
    EXPECT_EQ(last, 0x60) << "power management, then PCI Express";
}

TEST_F(SoftFace, resets_by_its_pci_express_capability) {
    const unsigned at = capability(pci::capability_express);
    ASSERT_NE(at, 0U);
    EXPECT_EQ(read<std::uint16_t>(config, at + 2), 2) << "an endpoint, version 2";
    EXPECT_NE(read<std::uint32_t>(config, at + 4) & 1U << 28, 0U) << "function-level reset";
    write<std::uint16_t>(config, pci::command, 6);
    write<std::uint32_t>(4, 12, 0);
    const unsigned before = model.resets;
    write<std::uint16_t>(config, at + 8, 0x5000);
    EXPECT_EQ(model.resets, before);
    EXPECT_EQ(read<std::uint16_t>(config, at + 8), 0x5000);
    write<std::uint16_t>(config, at + 8, 0xd000);
    EXPECT_EQ(model.resets, before + 1);
    EXPECT_EQ(read<std::uint16_t>(config, at + 8), 0x5000) << "the bit reads as 0";
    EXPECT_EQ(read<std::uint32_t>(4, 12), 1U) << "masked";
    EXPECT_TRUE(face.bus_master()) << "Linux restores configuration space";
    face.reset();
    EXPECT_EQ(model.resets, before + 2);
    EXPECT_FALSE(face.bus_master());
}

TEST_F(SoftFace, obeys_its_command_register) {
    EXPECT_EQ(read<std::uint16_t>(config, pci::command), 3) << "enabled, and no master";
    write<std::uint16_t>(config, pci::command, 0xffff);
    EXPECT_EQ(read<std::uint16_t>(config, pci::command), 0x547);
    EXPECT_TRUE(face.bus_master());
    write<std::uint8_t>(config, pci::command, 4);
    EXPECT_TRUE(face.bus_master());
    EXPECT_FALSE(face.memory_enabled());
    for (const unsigned region : {0U, 2U, 3U, 4U}) {
        EXPECT_EQ(read<std::uint32_t>(region, 0), ~0U) << region;
        write<std::uint32_t>(region, 0, 1);
    }
    EXPECT_TRUE(model.writes.empty() && model.reads.empty());
    write<std::uint8_t>(config, pci::command, 1);
    EXPECT_EQ(read<std::uint8_t>(3, 0), 1) << "ports alone";
    write<std::uint8_t>(config, pci::command, 2);
    EXPECT_TRUE(face.memory_enabled());
    const unsigned at = capability(pci::capability_power);
    ASSERT_NE(at, 0U);
    write<std::uint8_t>(config, at + 4, 3);
    EXPECT_FALSE(face.memory_enabled()) << "in D3hot";
    write<std::uint8_t>(config, at + 4, 0);
    EXPECT_TRUE(face.memory_enabled());
}

/// Each byte of an access goes to the model once, in aligned pieces inside of the access.
TEST_F(SoftFace, splits_accesses_into_registers) {
    for (std::uint64_t offset = 0; offset != 16; ++offset)
        for (std::size_t size = 0; size <= 32; ++size) {
            SCOPED_TRACE(std::to_string(size) + " bytes at " + std::to_string(offset));
            model.writes.clear();
            model.reads.clear();
            model.written.clear();
            std::vector<std::byte> bytes(size);
            for (std::size_t at = 0; at != size; ++at)
                bytes[at] = static_cast<std::byte>(at + 1);
            ASSERT_TRUE(face.write(2, offset, bytes));
            std::uint64_t next = offset;
            for (const auto& [bar, at, width] : model.writes) {
                ASSERT_EQ(bar, 2U);
                ASSERT_EQ(at, next);
                ASSERT_EQ(at % static_cast<unsigned>(width), 0U);
                next += static_cast<unsigned>(width);
            }
            ASSERT_EQ(next, offset + size);
            for (const auto& [at, value] : model.written)
                ASSERT_EQ(value, at - offset + 1);
            ASSERT_TRUE(face.read(2, offset, bytes));
            ASSERT_EQ(model.reads, model.writes);
        }
    EXPECT_EQ(read<std::uint64_t>(2, 8), 0x0807060504030201U);
    EXPECT_EQ(model.reads.back(), Noting::Access(2, 8, Width::bits64));
    EXPECT_EQ(read<std::uint32_t>(2, 8), 0x04030201U);
    EXPECT_EQ(model.reads.back(), Noting::Access(2, 8, Width::bits32));
}

TEST_F(SoftFace, refuses_what_lies_outside) {
    std::array<std::byte, 8> bytes{};
    for (unsigned region = 0; region != Face::region_count; ++region) {
        SCOPED_TRACE(region);
        const std::uint64_t size = face.region(region).size.value();
        EXPECT_FALSE(face.read(region, size, std::span(bytes).first(1)));
        EXPECT_FALSE(face.write(region, size - 7, bytes));
        EXPECT_FALSE(face.read(region, ~0ULL, bytes));
        EXPECT_FALSE(face.write(region, ~0ULL - 3, bytes));
        EXPECT_TRUE(face.read(region, size, {}));
        EXPECT_TRUE(face.write(region, size, {}));
        if (size != 0) {
            EXPECT_TRUE(face.read(region, size - 8, bytes));
        }
    }
    EXPECT_EQ(model.writes.size(), 0U);
}

TEST_F(SoftFace, loses_one_in_two_interrupts) {
    face.inject(Malfunction::lost_interrupt, {.after = 3});
    for (unsigned step = 0; step != 3; ++step)
        EXPECT_TRUE(face.step(bus));
    EXPECT_EQ(bus.interrupts, 3U);
    EXPECT_EQ(face.malfunctions(), 0U);
    for (unsigned step = 0; step != 10; ++step)
        EXPECT_TRUE(face.step(bus));
    EXPECT_EQ(bus.interrupts, 8U);
    EXPECT_EQ(face.malfunctions(), 5U);
}

TEST_F(SoftFace, hangs_after_as_many_steps) {
    face.inject(Malfunction::hang, {.after = 2});
    EXPECT_TRUE(face.step(bus));
    EXPECT_TRUE(face.step(bus));
    EXPECT_FALSE(face.step(bus));
    EXPECT_EQ(bus.interrupts, 2U);
    EXPECT_EQ(face.malfunctions(), 1U);
    EXPECT_EQ(read<std::uint32_t>(2, 8), 0x04030201U) << "its registers answer";
}

TEST_F(SoftFace, is_all_ones_once_removed) {
    write<std::uint16_t>(config, pci::command, 6);
    face.inject(Malfunction::removed, {.after = 1});
    EXPECT_EQ(read<std::uint32_t>(2, 8), 0x04030201U);
    EXPECT_TRUE(face.step(bus));
    EXPECT_FALSE(face.step(bus));
    model.writes.clear();
    for (const unsigned region : {0U, 2U, 3U, 4U, config}) {
        EXPECT_EQ(read<std::uint32_t>(region, 0), ~0U) << region;
        write<std::uint32_t>(region, 0, 1);
    }
    EXPECT_TRUE(model.writes.empty());
    EXPECT_EQ(face.malfunctions(), 1U);
}

TEST_F(SoftFace, answers_all_ones_in_its_bars_and_works_on) {
    write<std::uint16_t>(config, pci::command, 6);
    face.inject(Malfunction::all_ones, {.after = 1});
    EXPECT_EQ(read<std::uint32_t>(2, 8), 0x04030201U);
    EXPECT_TRUE(face.step(bus));
    EXPECT_EQ(read<std::uint32_t>(2, 8), ~0U);
    EXPECT_NE(read<std::uint32_t>(config, 0), ~0U);
    EXPECT_TRUE(face.step(bus));
    EXPECT_EQ(bus.interrupts, 2U);
    EXPECT_EQ(face.malfunctions(), 1U);
}

TEST_F(SoftFace, loses_the_interrupts_of_a_seed) {
    constexpr unsigned steps = 400;
    const auto lost_with = [&](std::uint64_t seed) {
        std::vector<unsigned> lost;
        face.inject(Malfunction::lost_interrupt, {.after = 10, .seed = seed});
        for (unsigned step = 0; step != steps; ++step) {
            const unsigned before = bus.interrupts;
            EXPECT_TRUE(face.step(bus));
            if (bus.interrupts == before)
                lost.push_back(step);
        }
        return lost;
    };
    const std::vector<unsigned> first = lost_with(1);
    EXPECT_EQ(first, lost_with(1));
    EXPECT_NE(first, lost_with(2));
    EXPECT_NEAR(static_cast<double>(first.size()), steps / 4.0, steps / 10.0);
    EXPECT_GE(first.front(), 10U);
}

TEST_F(SoftFace, hangs_at_the_step_of_a_seed) {
    const auto steps_with = [&](std::uint64_t seed) {
        face.inject(Malfunction::hang, {.after = 5, .seed = seed});
        unsigned steps = 0;
        while (face.step(bus))
            ++steps;
        return steps;
    };
    std::set<unsigned> steps;
    for (std::uint64_t seed = 0; seed != 100; ++seed) {
        EXPECT_EQ(steps_with(seed), steps_with(seed));
        steps.insert(steps_with(seed));
    }
    EXPECT_GE(*steps.begin(), 5U);
    EXPECT_LT(*steps.rbegin(), 5U + 64U);
    EXPECT_GT(steps.size(), 32U) << "seeds differ";
}

/// Any accesses leave what identifies the function as it was.
TEST_F(SoftFace, keeps_its_header_under_any_writes) {
    std::vector<std::byte> before(4096);
    ASSERT_TRUE(face.read(config, 0, before));
    std::mt19937_64 random(7);
    for (int round = 0; round != 20000; ++round) {
        std::array<std::byte, 16> bytes{};
        for (std::byte& each : bytes)
            each = static_cast<std::byte>(random());
        static_cast<void>(
            face.write(config, random() % 4100, std::span(bytes).first(random() % 17)));
    }
    std::vector<std::byte> after(4096);
    ASSERT_TRUE(face.read(config, 0, after));
    std::set<std::size_t> changed;
    for (std::size_t at = 0; at != after.size(); ++at)
        if (before[at] != after[at])
            changed.insert(at);
    EXPECT_FALSE(changed.empty());
    for (const std::size_t at : changed)
        EXPECT_TRUE((at >= 4 && at < 6) || at == 0xc || (at >= 0x10 && at < 0x28) || at == 0x3c ||
                    at == 0x44 || (at >= 0x68 && at < 0x6a) || (at >= 0x70 && at < 0x72))
            << at;
    face.reset();
    ASSERT_TRUE(face.read(config, 0, after));
    EXPECT_EQ(before, after);
}

} // namespace

} // namespace moat::machine::soft
