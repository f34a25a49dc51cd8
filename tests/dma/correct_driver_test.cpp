// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A correct driver and device, a million times: no level reports anything, and the device reaches
// the memory that was mapped for it.
#include "moat/core/text.hpp"

#include "space_system.hpp"

#include <algorithm>
#include <cstdlib>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

namespace moat::tests {

namespace {

using namespace dma;
using namespace literals;

constexpr int operations = slow ? 50'000 : 1'000'000;

class Driver {
  public:
    Driver(Level level, unsigned seed)
        : system_({.level = level, .quarantine = 1_MiB}), random_(seed) {}

    void step() {
        if (live_.size() < 40 && random_() % 3 == 0)
            return lend();
        if (live_.empty())
            return;
        const std::size_t chosen = random_() % live_.size();
        switch (random_() % 6) {
        case 0:
            return take_back(chosen);
        case 1:
            return sync(live_[chosen]);
        default:
            return use(live_[chosen]);
        }
    }

    void finish() {
        while (!live_.empty())
            take_back(live_.size() - 1);
        EXPECT_TRUE(system_.heard.errors.empty()) << summary(system_.heard.errors[0]);
        EXPECT_TRUE(system_.heard.faults.empty());
        EXPECT_EQ(system_.space->stats().live_ranges, 0U);
    }

    int wrong = 0;
    int performed = 0; ///< calls and accesses; all must succeed

  private:
    /// Pages that are mapped as a whole, so that no two buffers share a byte.
    static constexpr std::size_t places = 64;
    static constexpr std::size_t place_bytes = 3 << 12;

    struct Live {
        std::size_t place;
        Iova iova;      ///< the address to unmap
        ByteCount size; ///< and its size
        Direction direction;
        bool is_list;
        std::vector<Segment> segments; ///< the address that the device uses
    };

    [[nodiscard]] Memory memory(std::size_t place, std::size_t at, std::size_t size) {
        return Memory::own(buffer_.bytes().subspan(place * place_bytes + at, size));
    }

    void lend() {
        const std::size_t place = random_() % places;
        if (std::ranges::any_of(live_, [&](const Live& each) { return each.place == place; }))
            return;
        ++performed;
        const auto direction = static_cast<Direction>(random_() % 3);
        switch (random_() % 4) {
        case 0:
            return lend_list(place, direction);
        case 1:
            return lend_coherent(place);
        default:
            break;
        }
        const std::size_t at = random_() % 4096;
        const std::size_t size = 1 + random_() % (random_() % 2 == 0 ? 300 : place_bytes - at);
        const auto iova = system_.space->map(memory(place, at, size), direction, "buffer");
        wrong += !iova;
        if (iova)
            live_.push_back(
                {place, *iova, ByteCount(size), direction, false, {{*iova, ByteCount(size)}}});
    }

    void lend_list(std::size_t place, Direction direction) {
        const std::vector<Memory> pieces = {memory(place, 2 << 12, 1 + random_() % 4096),
                                            memory(place, 0, 4096),
                                            memory(place, 4096 + random_() % 2048, 500)};
        std::vector<Segment> segments(pieces.size());
        const auto list = system_.space->map_list(
            pieces, direction, segments, {.guard = ByteCount(random_() % 2 * 5000)}, "list");
        wrong += !list;
        if (!list)
            return;
        segments.resize(list->segments.size());
        live_.push_back({place, list->start, list->size, direction, true, segments});
    }

    void lend_coherent(std::size_t place) {
        const ByteCount size((1 + random_() % 3) << 12);
        const auto iova = system_.space->map_coherent(memory(place, 0, size.value()), "ring");
        wrong += !iova;
        if (iova)
            live_.push_back({place, *iova, size, Direction::bidirectional, false, {{*iova, size}}});
    }

    void use(const Live& each) {
        ++performed;
        const Segment& segment = each.segments[random_() % each.segments.size()];
        const std::size_t offset = random_() % segment.size.value();
        const std::size_t most = std::min<std::size_t>(segment.size.value() - offset, 600);
        const Iova at(segment.iova.value() + offset);
        const std::span piece(scratch_.data(), 1 + random_() % most);
        wrong += each.direction == Direction::to_device ? !system_.lane.read(at, piece).complete()
                                                        : !system_.lane.write(at, piece).complete();
    }

    void sync(const Live& each) {
        if (each.is_list)
            return;
        ++performed;
        const ByteCount offset(random_() % each.size.value());
        const ByteCount size(1 + random_() % (each.size.value() - offset.value()));
        wrong += !(random_() % 2 == 0 ? system_.space->sync_for_cpu(each.iova, offset, size)
                                      : system_.space->sync_for_device(each.iova, offset, size));
    }

    void take_back(std::size_t chosen) {
        ++performed;
        const Live& each = live_[chosen];
        wrong += !system_.space->unmap(each.iova, each.size, each.direction);
        live_[chosen] = live_.back();
        live_.pop_back();
    }

    System system_;
    std::mt19937 random_;
    Buffer buffer_{places * place_bytes};
    std::vector<Live> live_;
    std::vector<std::byte> scratch_ = std::vector<std::byte>(600);
};

class CorrectDriver : public testing::TestWithParam<Level> {};

TEST_P(CorrectDriver, hears_nothing) {
    const char* const given = std::getenv("MOAT_SEED");
    const unsigned seed = given != nullptr ? std::stoul(given) : 11;
    SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
    Driver driver(GetParam(), seed);
    while (driver.performed < operations) {
        driver.step();
        ASSERT_EQ(driver.wrong, 0) << "operation " << driver.performed;
    }
    driver.finish();
}

INSTANTIATE_TEST_SUITE_P(Levels, CorrectDriver,
                         testing::Values(Level::guard, Level::track, Level::exact),
                         [](const auto& each) {
                             return std::string(each.param == Level::guard   ? "guard"
                                                : each.param == Level::track ? "track"
                                                                             : "exact");
                         });

} // namespace

} // namespace moat::tests
