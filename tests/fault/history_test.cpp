// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The history against a list that is searched from its newest end.
#include "moat/core/text.hpp"
#include "moat/fault/mapping.hpp"

#include "mappings.hpp"

#include <deque>
#include <gtest/gtest.h>
#include <random>

namespace moat::fault {

namespace {

/// The expected contents of the history, newest first.
class Model {
  public:
    explicit Model(std::size_t capacity) : capacity_(capacity) {}

    void note(IovaRange range) {
        newest_first_.push_front(range);
        if (newest_first_.size() > capacity_)
            newest_first_.pop_back();
    }

    [[nodiscard]] std::optional<std::size_t> latest(IovaRange range) const {
        for (std::size_t index = 0; index != newest_first_.size(); ++index)
            if (newest_first_[index].overlaps(range))
                return index;
        return std::nullopt;
    }

    /// The highest remembered address below `at`, and the newest mapping that covers it.
    [[nodiscard]] std::optional<std::size_t> below(Iova at) const {
        std::optional<Iova> highest;
        for (const IovaRange& range : newest_first_)
            if (range.start() < at)
                highest = std::max(highest.value_or(Iova(0)),
                                   std::min(range.last(), Iova(at.value() - 1)));
        return highest ? latest({*highest, ByteCount(1)}) : std::nullopt;
    }

    [[nodiscard]] std::optional<std::size_t> above(Iova at) const {
        std::optional<Iova> lowest;
        for (const IovaRange& range : newest_first_)
            if (range.last() > at)
                lowest = std::min(lowest.value_or(Iova(~std::uint64_t{0})),
                                  std::max(range.start(), Iova(at.value() + 1)));
        return lowest ? latest({*lowest, ByteCount(1)}) : std::nullopt;
    }

  private:
    std::size_t capacity_;
    std::deque<IovaRange> newest_first_;
};

[[nodiscard]] std::optional<std::size_t> index(const std::optional<PastMapping>& past) {
    return past ? std::optional<std::size_t>(past->unmaps_since) : std::nullopt;
}

void compare(const History& history, const Model& model, IovaRange range) {
    SearchSteps steps;
    const PastNeighbours found = history.around(range, steps);
    const auto latest = model.latest(range);
    ASSERT_EQ(index(found.latest), latest) << range;
    if (latest)
        return;
    EXPECT_EQ(index(found.below), model.below(range.start())) << range;
    EXPECT_EQ(index(found.above), model.above(range.last())) << range;
}

TEST(History, finds_the_latest_mapping_that_covered_an_address) {
    History history(8);
    history.note(mapping(0x1000, 0x3000, "first"), {});
    history.note(mapping(0x2000, 0x1000, "second"), {.time_ns = 7});
    history.catch_up();
    SearchSteps steps;
    EXPECT_EQ(history.around(bytes(0x1800, 4), steps).latest->mapping.label, "first");
    EXPECT_EQ(history.around(bytes(0x3000, 1), steps).latest->mapping.label, "first");
    const auto second = history.around(bytes(0x2fff, 1), steps).latest;
    EXPECT_EQ(second->mapping.label, "second");
    EXPECT_EQ(second->unmapped.time_ns, 7U);
    EXPECT_EQ(second->unmaps_since, 0U);
    EXPECT_EQ(history.around(bytes(0x1ff0, 0x20), steps).latest->mapping.label, "second");
}

TEST(History, knows_the_nearest_on_both_sides_of_an_address_that_was_never_mapped) {
    History history(8);
    history.note(mapping(0x1000, 0x1000, "below"), {});
    history.note(mapping(0x4000, 0x1000, "above"), {});
    history.catch_up();
    SearchSteps steps;
    const PastNeighbours found = history.around(bytes(0x2800, 16), steps);
    EXPECT_FALSE(found.latest);
    EXPECT_EQ(found.below->mapping.label, "below");
    EXPECT_EQ(found.above->mapping.label, "above");
}

TEST(History, forgets_the_oldest_where_the_ring_is_full) {
    History history(2);
    for (std::uint64_t page = 1; page != 6; ++page) {
        history.note(mapping(page << 12, 0x1000, "page"), {});
        if (page % 2 == 0)
            history.catch_up();
    }
    history.catch_up();
    history.verify();
    SearchSteps steps;
    EXPECT_EQ(history.size(), 2U);
    EXPECT_FALSE(history.around(bytes(0x3000, 0x1000), steps).latest);
    EXPECT_TRUE(history.around(bytes(0x4000, 0x1000), steps).latest);
}

TEST(History, reaches_the_last_address) {
    History history(4);
    const std::uint64_t top = ~std::uint64_t{0} - 0xfff;
    history.note(mapping(top, 0x1000, "top"), {});
    history.note(mapping(top + 0x800, 0x800, "tail"), {});
    history.catch_up();
    history.verify();
    SearchSteps steps;
    EXPECT_EQ(history.around(bytes(top + 0xfff, 1), steps).latest->mapping.label, "tail");
    EXPECT_EQ(history.around(bytes(top, 1), steps).latest->mapping.label, "top");
}

TEST(History, agrees_with_a_list_on_random_mappings) {
    const std::uint64_t seed = 20251121;
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    for (const std::size_t capacity : {1U, 7U, 64U}) {
        History history(capacity);
        Model model(capacity);
        for (int round = 0; round != 400; ++round) {
            for (std::uint64_t noted = random() % 12; noted != 0; --noted) {
                const IovaRange range = bytes(random() % 4096, 1 + random() % (1U << random() % 9));
                history.note({.range = range}, {});
                model.note(range);
            }
            history.catch_up();
            history.verify();
            for (int question = 0; question != 8; ++question)
                compare(history, model, bytes(random() % 5000, 1 + random() % 2));
            ASSERT_FALSE(HasFailure()) << "round " << round;
        }
    }
}

} // namespace

} // namespace moat::fault
