// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Who owns which bytes of a mapping at level exact: what each sync copies, and which misuse of
// ownership is reported. A model follows random syncs of the space to the byte.
#include "moat/core/text.hpp"

#include "space_system.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

namespace moat::tests {

namespace {

using namespace literals;
using namespace dma;

class Ownership : public testing::Test {
  protected:
    void map(std::size_t size, Direction with) {
        direction = with;
        memory = Memory::own(buffer.bytes().subspan(64, size));
        iova = *system.space->map(memory, direction, "ring");
    }

    void device_writes(std::uint64_t at, std::size_t size, int value) {
        ASSERT_TRUE(system.write(iova.value() + at, size, value).complete());
    }

    [[nodiscard]] int device_reads(std::uint64_t at) {
        std::array<std::byte, 1> seen{};
        EXPECT_TRUE(system.lane.read(Iova(iova.value() + at), seen).complete());
        return static_cast<int>(seen[0]);
    }

    [[nodiscard]] int cpu_reads(std::size_t at) const { return static_cast<int>(memory.bytes[at]); }

    void cpu_writes(std::size_t at, int value) { memory.bytes[at] = static_cast<std::byte>(value); }

    void for_cpu(std::uint64_t at, std::uint64_t size) {
        ASSERT_TRUE(system.space->sync_for_cpu(iova, ByteCount(at), ByteCount(size)));
    }

    void for_device(std::uint64_t at, std::uint64_t size) {
        ASSERT_TRUE(system.space->sync_for_device(iova, ByteCount(at), ByteCount(size)));
    }

    void unmap() { ASSERT_TRUE(system.space->unmap(iova, memory.size(), direction)); }

    /// "KIND FIRST+SIZE, ...", offsets from the mapping's start.
    [[nodiscard]] std::string heard() const {
        std::string all;
        for (const DriverError& each : system.heard.errors)
            all += (all.empty() ? "" : ", ") + std::string(name(each.kind)) + " " +
                   std::to_string(static_cast<std::int64_t>(each.range.start().value() -
                                                            each.mapping.range.start().value())) +
                   "+" + std::to_string(each.range.size().value());
        return all;
    }

    System system{{.level = Level::exact, .cpu = CpuWatch::off}};
    Buffer buffer{4 << 12};
    Memory memory;
    Iova iova;
    Direction direction = Direction::bidirectional;
};

TEST_F(Ownership, sync_for_device_moves_its_range_alone) {
    map(128, Direction::bidirectional);
    for_cpu(0, 128);
    cpu_writes(3, 3);
    cpu_writes(20, 20);
    device_writes(64, 4, 9); // a completion, while the CPU prepares
    for_device(0, 16);
    EXPECT_EQ(device_reads(3), 3);
    EXPECT_EQ(device_reads(20), 0) << "not given yet";
    EXPECT_EQ(device_reads(64), 9) << "the device's own";
    for_cpu(64, 4);
    EXPECT_EQ(cpu_reads(64), 9);
    EXPECT_EQ(cpu_reads(20), 20);
    unmap();
    EXPECT_EQ(heard(), "");
}

TEST_F(Ownership, sync_for_cpu_moves_its_range_alone) {
    map(128, Direction::bidirectional);
    for_cpu(0, 16);
    cpu_writes(0, 7);
    device_writes(64, 16, 9);
    device_writes(100, 1, 5);
    for_cpu(64, 16);
    EXPECT_EQ(cpu_reads(0), 7);
    EXPECT_EQ(cpu_reads(64), 9);
    EXPECT_EQ(cpu_reads(100), 0) << "not taken yet";
    unmap();
    EXPECT_EQ(cpu_reads(0), 7) << "the CPU owned it";
    EXPECT_EQ(cpu_reads(100), 5);
    EXPECT_EQ(heard(), "");
}

TEST_F(Ownership, polling_sees_what_the_device_writes_later) {
    map(128, Direction::from_device);
    for_cpu(0, 8);
    EXPECT_EQ(cpu_reads(0), 0);
    device_writes(0, 1, 1);
    for_cpu(0, 8); // again, without a sync_for_device between
    EXPECT_EQ(cpu_reads(0), 1);
    unmap();
    EXPECT_EQ(heard(), "");
}

TEST_F(Ownership, the_cpu_writes_what_it_took_and_the_device_reads_it_when_given) {
    for (const std::size_t size : {128U, 6000U}) {
        map(size, Direction::to_device);
        for_cpu(0, 64);
        cpu_writes(10, 1);
        for_device(0, 64);
        EXPECT_EQ(device_reads(10), 1);
        for_cpu(32, 8);
        cpu_writes(33, 2); // and unmaps without another sync
        unmap();
        EXPECT_EQ(heard(), "") << size;
    }
}

TEST_F(Ownership, a_write_of_the_cpu_elsewhere_is_found_after_a_partial_sync) {
    for (const std::size_t size : {128U, 6000U}) {
        system.heard.errors.clear();
        map(size, Direction::to_device);
        for_cpu(0, 16);
        cpu_writes(100, cpu_reads(100) + 1);
        cpu_writes(102, cpu_reads(102) + 1);
        for_device(0, 16);
        unmap();
        EXPECT_EQ(heard(), "cpu-wrote 100+3") << size;
    }
}

TEST_F(Ownership, a_write_of_the_cpu_is_found_where_the_device_writes_elsewhere_in_the_buffer) {
    map(128, Direction::from_device);
    device_writes(0, 16, 5);
    cpu_writes(64, 1);
    unmap();
    EXPECT_EQ(heard(), "cpu-wrote 64+1");
    EXPECT_EQ(cpu_reads(0), 5);
}

TEST_F(Ownership, a_buffer_that_goes_back_unlooked_at_is_a_missing_sync) {
    map(128, Direction::from_device);
    device_writes(16, 8, 5);
    for_device(0, 128);
    EXPECT_EQ(heard(), "missing-sync 16+8");
    for_device(0, 128);
    EXPECT_EQ(heard(), "missing-sync 16+8") << "reported once";
    for_cpu(0, 128);
    EXPECT_EQ(cpu_reads(16), 5) << "nothing was lost";
    unmap();
    EXPECT_EQ(system.heard.errors.size(), 1U);
}

TEST_F(Ownership, a_packet_that_was_looked_at_in_part_may_go_back_as_a_whole) {
    map(128, Direction::from_device);
    for (int turn = 1; turn != 4; ++turn) {
        device_writes(0, 64, turn); // with its padding
        for_cpu(0, 60);
        EXPECT_EQ(cpu_reads(59), turn);
        for_device(0, 128);
    }
    unmap();
    EXPECT_EQ(heard(), "");
}

TEST_F(Ownership, damage_beside_the_buffer_is_reported_once) {
    System pages({.level = Level::exact, .placement = Placement::left, .cpu = CpuWatch::off},
                 Finest::pages);
    const Memory small = Memory::own(buffer.bytes().subspan(64, 100));
    const Iova at = *pages.space->map(small, Direction::from_device, "small");
    ASSERT_TRUE(pages.write(at.value() + 98, 5).complete());
    ASSERT_TRUE(pages.space->sync_for_cpu(at, 0_B, 1_B));
    ASSERT_TRUE(pages.space->sync_for_cpu(at, 0_B, 100_B));
    ASSERT_TRUE(pages.space->unmap(at, 100_B, Direction::from_device));
    ASSERT_EQ(pages.heard.errors.size(), 1U);
    EXPECT_EQ(pages.heard.errors[0].range, IovaRange(Iova(at.value() + 100), 3_B));
}

TEST_F(Ownership, red_zones_fit_each_buffer_that_reuses_a_page) {
    for (const Placement placement : {Placement::left, Placement::right}) {
        System pages({.level = Level::exact, .placement = placement, .cpu = CpuWatch::off},
                     Finest::pages);
        for (const std::size_t size : {100U, 64U, 3000U, 8U, 8U, 1500U, 4032U, 1U}) {
            const Memory each = Memory::own(buffer.bytes().subspan(64, size));
            const Iova at = *pages.space->map(each, Direction::from_device, "one of many");
            EXPECT_TRUE(pages.write(at.value(), size).complete());
            EXPECT_TRUE(pages.space->unmap(at, each.size(), Direction::from_device));
            EXPECT_TRUE(pages.heard.errors.empty()) << size << " bytes";
        }
    }
}

/// The required value of each byte, from the rules of sync_for_cpu and sync_for_device alone.
class Model {
  public:
    explicit Model(std::size_t size) : cpu(size), device(size), cpu_owns(size) {}

    void take(std::size_t at, std::size_t size) {
        for (std::size_t i = at; i != at + size; ++i) {
            cpu[i] = device[i];
            cpu_owns[i] = true;
        }
    }

    void give(std::size_t at, std::size_t size) {
        for (std::size_t i = at; i != at + size; ++i) {
            if (cpu_owns[i])
                device[i] = cpu[i];
            cpu_owns[i] = false;
        }
    }

    std::vector<int> cpu;
    std::vector<int> device;
    std::vector<bool> cpu_owns;
};

TEST_F(Ownership, random_syncs_of_parts_move_exactly_what_they_name) {
    const char* const given = std::getenv("MOAT_SEED");
    const unsigned seed = given != nullptr ? std::stoul(given) : 11;
    SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
    std::mt19937 random(seed);
    constexpr std::size_t size = 96;
    map(size, Direction::bidirectional);
    Model model(size);
    for (int step = 0; step != 20'000; ++step) {
        const std::size_t at = random() % size;
        const std::size_t length = 1 + random() % (size - at);
        const int value = static_cast<int>(random() % 256);
        switch (random() % 4) {
        case 0: // each writes only what it owns
            if (model.cpu_owns[at])
                cpu_writes(at, model.cpu[at] = value);
            break;
        case 1:
            if (!model.cpu_owns[at]) {
                device_writes(at, 1, value);
                model.device[at] = value;
            }
            break;
        case 2:
            // The CPU keeps the bytes that it owns already; those that it takes come from the
            // device.
            for_cpu(at, length);
            for (std::size_t i = at; i != at + length; ++i)
                if (!model.cpu_owns[i])
                    model.take(i, 1);
            break;
        default:
            // The CPU owns at least one byte, so this is no missing sync.
            for_cpu(at, 1);
            if (!model.cpu_owns[at])
                model.take(at, 1);
            for_device(at, length);
            model.give(at, length);
        }
        const std::size_t looked = random() % size;
        ASSERT_EQ(device_reads(looked), model.device[looked]) << "step " << step;
        if (model.cpu_owns[looked]) {
            ASSERT_EQ(cpu_reads(looked), model.cpu[looked]) << "step " << step;
        }
    }
    unmap();
    for (std::size_t i = 0; i != size; ++i)
        EXPECT_EQ(cpu_reads(i), model.cpu_owns[i] ? model.cpu[i] : model.device[i]) << i;
    EXPECT_EQ(heard(), "");
}

} // namespace

} // namespace moat::tests
