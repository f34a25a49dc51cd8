// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Two mappings of the same memory that a device may write, compared with a model that tests every
// pair; and the index of overlapping intervals behind the check.
#include "moat/core/text.hpp"
#include "moat/dma/detail/interval_index.hpp"

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

class DoubleMappings : public testing::Test {
  protected:
    Iova map(System& with, std::size_t at, std::size_t size, Direction direction,
             std::string_view label) {
        return *with.space->map(Memory::own(buffer.bytes().subspan(at, size)), direction, label);
    }

    Buffer buffer{8 << 12};
};

TEST_F(DoubleMappings, names_both_once) {
    System system({.level = Level::exact, .cpu = CpuWatch::off});
    const Iova one = map(system, 0, 4096, Direction::to_device, "command");
    const Iova two = map(system, 4000, 200, Direction::from_device, "answer");
    ASSERT_EQ(system.heard.errors.size(), 1U);
    const DriverError& said = system.heard.errors[0];
    EXPECT_EQ(said.kind, DriverErrorKind::double_mapping);
    EXPECT_EQ(said.mapping.label, "answer");
    EXPECT_EQ(said.other->label, "command");
    EXPECT_NE(summary(said).find("\"answer\""), std::string::npos);
    EXPECT_NE(summary(said).find("\"command\""), std::string::npos);
    EXPECT_TRUE(system.space->unmap(one, 4096_B, Direction::to_device));
    EXPECT_TRUE(system.space->unmap(two, 200_B, Direction::from_device));
    EXPECT_EQ(system.heard.errors.size(), 1U);
}

TEST_F(DoubleMappings, is_silent_where_no_device_writes_and_where_the_option_says_so) {
    System readers({.level = Level::exact, .cpu = CpuWatch::off});
    map(readers, 0, 4096, Direction::to_device, "zeroes");
    map(readers, 0, 4096, Direction::to_device, "zeroes");
    map(readers, 4096, 64, Direction::from_device, "beside");
    EXPECT_TRUE(readers.heard.errors.empty());
    System silent(
        {.level = Level::exact, .double_mapping = DoubleMapping::ignore, .cpu = CpuWatch::off});
    map(silent, 0, 4096, Direction::from_device, "one");
    map(silent, 0, 4096, Direction::from_device, "two");
    EXPECT_TRUE(silent.heard.errors.empty());
}

TEST_F(DoubleMappings, lists_and_coherent_memory_are_compared_too) {
    System system({.level = Level::exact, .cpu = CpuWatch::off});
    const std::vector<Memory> pieces = {Memory::own(buffer.bytes().subspan(4096, 512)),
                                        Memory::own(buffer.bytes().subspan(3 << 12, 512))};
    std::vector<Segment> segments(2);
    const auto list = *system.space->map_list(pieces, Direction::to_device, segments, {}, "list");
    map(system, (3 << 12) + 500, 20, Direction::from_device, "in the list");
    ASSERT_EQ(system.heard.errors.size(), 1U);
    EXPECT_EQ(system.heard.errors[0].other->label, "list");
    ASSERT_TRUE(system.space->unmap(list.start, list.size, Direction::to_device));
    map(system, 4096, 64, Direction::from_device, "after the list");
    EXPECT_EQ(system.heard.errors.size(), 1U);
    ASSERT_TRUE(
        system.space->map_coherent(Memory::own(buffer.bytes().subspan(4096, 4096)), "ring"));
    ASSERT_EQ(system.heard.errors.size(), 2U);
    EXPECT_EQ(system.heard.errors[1].mapping.label, "ring");
}

TEST(IntervalIndex, finds_what_a_comparison_of_all_finds) {
    const char* const given = std::getenv("MOAT_SEED");
    const unsigned seed = given != nullptr ? std::stoul(given) : 3;
    SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
    std::mt19937_64 random(seed);

    struct Interval {
        std::uint64_t first;
        std::uint64_t last;
        int number;
    };

    IntervalIndex<int> index;
    std::vector<Interval> model;
    for (int step = 0; step != 20'000; ++step) {
        // Of every length; some at the ends of the number range.
        const std::uint64_t length = random() >> (random() % 64);
        const std::uint64_t place = random() % 16 == 0 ? random() : random() % (1 << 20);
        const std::uint64_t last = place > ~length ? ~std::uint64_t{0} : place + length;
        if (random() % 2 == 0 && model.size() < 200) {
            index.add(place, last, step);
            model.push_back({place, last, step});
        } else if (!model.empty() && random() % 2 == 0) {
            const std::size_t gone = random() % model.size();
            const Interval was = model[gone];
            index.remove(was.first, was.last, [&](int number) { return number == was.number; });
            model.erase(model.begin() + static_cast<std::ptrdiff_t>(gone));
        }
        std::vector<int> expected;
        for (const Interval& each : model)
            if (each.first <= last && place <= each.last)
                expected.push_back(each.number);
        std::vector<int> found;
        (void)index.find(place, last, [&](std::uint64_t, std::uint64_t, int number) {
            found.push_back(number);
            return false;
        });
        std::ranges::sort(found);
        ASSERT_EQ(found, expected) << "step " << step;
        ASSERT_EQ(index.empty(), model.empty());
    }
}

} // namespace

} // namespace moat::tests
