// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Random operations against the interval model, by guard and granule. A failure prints the seed;
// MOAT_SEED runs that one alone.
#include "moat/iova/allocator.hpp"
#include "moat/sync/serial.hpp"

#include "model.hpp"

#include <algorithm>
#include <cstdlib>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace moat::iova {

namespace {

struct Shape {
    const char* name;
    std::uint64_t aperture_bytes;
    Guard guard;
    QuarantineBudget quarantine;
};

const std::vector<Shape> shapes = {
    {"no_guard", std::uint64_t{1} << 32, {}, {}},
    {"after_one_page", std::uint64_t{1} << 32, {{}, ByteCount(1)}, {}},
    {"both_sides", std::uint64_t{1} << 40, {ByteCount(70000), ByteCount(9000)}, {}},
    {"small_and_full", 48 << 20, {{}, ByteCount(4096)}, {}},
    {"quarantine", std::uint64_t{1} << 32, {{}, ByteCount(4096)}, {ByteCount(8 << 20), 300, 5000}},
    {"whole_57_bits", std::uint64_t{1} << 57, {{}, ByteCount(4096)}, {}},
};

struct Live {
    std::uint64_t start = 0;
    ByteCount size{};
};

int invalidations = 0;

class Session {
  public:
    using Subject = Allocator<SerialSync>;

    Session(const Shape& shape, unsigned granule_lg2, std::uint64_t seed)
        : shape_(shape), granule_lg2_(granule_lg2), granule_(std::uint64_t{1} << granule_lg2),
          random_(seed), model_(gap(shape, granule_lg2), granule_) {
        const IovaRange aperture(Iova(0), ByteCount(shape.aperture_bytes));
        const Config config{.aperture = {&aperture, 1},
                            .granule_lg2 = granule_lg2,
                            .guard = shape.guard,
                            .quarantine = shape.quarantine,
                            .invalidation = {[](void*) {
                                                 ++invalidations;
                                                 return Result<void>();
                                             },
                                             nullptr}};
        auto made = Subject::create(config);
        EXPECT_TRUE(made.has_value());
        subject_ = std::move(*made);
        free_at_start_ = subject_->stats().free;
    }

    void step() {
        const std::uint64_t what = pick(100);
        if (what < 32)
            allocate_plain();
        else if (what < 40)
            allocate_congruent();
        else if (what < 48)
            allocate_limited();
        else if (what < 54)
            allocate_fixed();
        else if (what < 90)
            release();
        else if (what < 93)
            misuse();
        else if (what < 94)
            EXPECT_TRUE(subject_->flush());
        else if (what < 95)
            subject_->rest();
        else if (what < 96)
            SerialSync::advance(pick(20'000'000));
        else
            check_stats();
    }

    void finish() {
        while (!live_.empty())
            release();
        EXPECT_TRUE(subject_->flush());
        subject_->rest();
        // A request for everything empties every cache, whether or not it succeeds.
        const ByteCount all(shape_.aperture_bytes);
        if (const auto got = subject_->allocate({.size = all})) {
            EXPECT_TRUE(subject_->release(*got, all).has_value());
        }
        const Stats stats = subject_->stats();
        EXPECT_EQ(stats.cached, ByteCount(0));
        EXPECT_EQ(stats.quarantined, ByteCount(0));
        EXPECT_EQ(stats.queued, ByteCount(0));
        EXPECT_EQ(stats.live_ranges, 0U);
        EXPECT_EQ(stats.free, free_at_start_);
        EXPECT_EQ(stats.guard, ByteCount(0));
    }

  private:
    static std::uint64_t gap(const Shape& shape, unsigned granule_lg2) {
        return GuardPages(shape.guard, granule_lg2).both() << iova::page_lg2;
    }

    std::uint64_t pick(std::uint64_t below) { return random_() % below; }

    ByteCount size() {
        const std::uint64_t kind = pick(20);
        if (kind == 19) // few sizes that no magazine holds, so that the special cache serves some
            return ByteCount((513 + pick(3)) * granule_);
        if (kind == 0)
            return ByteCount(1 + pick(6 << 20));
        if (kind < 4)
            return ByteCount(1 + pick(300000));
        return ByteCount(1 + pick(9 * granule_));
    }

    void accept(const Result<Iova>& got, ByteCount size) {
        if (!got) {
            ASSERT_EQ(got.error().code(), ErrorCode::no_space) << to_string(got.error());
            return;
        }
        ASSERT_EQ(model_.check(got->value(), size.value()), "");
        ASSERT_LE(got->value() + model_.rounded(size.value()), shape_.aperture_bytes);
        model_.add(got->value(), size.value());
        live_.push_back({got->value(), size});
    }

    void allocate_plain() {
        const ByteCount bytes = size();
        accept(subject_->allocate({.size = bytes}), bytes);
    }

    void allocate_congruent() {
        const ByteCount bytes = size();
        const unsigned lg2 = 12 + static_cast<unsigned>(pick(pick(8) == 0 ? 19 : 10));
        const Congruence where = pick(2) == 0 ? Congruence::natural(bytes)
                                              : Congruence{lg2, pick(1ULL << 40) & ~(granule_ - 1)};
        const auto got = subject_->allocate({.size = bytes, .placement = where});
        if (got && where.modulus_lg2 > granule_lg2_) {
            ASSERT_TRUE(is_aligned(got->value() - where.like, where.modulus_lg2));
        }
        accept(got, bytes);
    }

    void allocate_limited() {
        const ByteCount bytes = size();
        const Iova last(bytes.value() + pick(shape_.aperture_bytes >> pick(10)));
        const auto got = subject_->allocate({.size = bytes, .last = last});
        if (got) {
            ASSERT_LE(got->value() + model_.rounded(bytes.value()) - 1, last.value());
        }
        accept(got, bytes);
    }

    void allocate_fixed() {
        const ByteCount bytes = size();
        const std::uint64_t at = pick(shape_.aperture_bytes >> pick(10)) & ~(granule_ - 1);
        const auto got = subject_->allocate({.size = bytes, .at = Iova(at)});
        if (!got) {
            ASSERT_TRUE(got.error().code() == ErrorCode::overlap ||
                        got.error().code() == ErrorCode::out_of_range)
                << to_string(got.error());
            return;
        }
        ASSERT_EQ(got->value(), at);
        accept(got, bytes);
    }

    void release() {
        if (live_.empty())
            return;
        const std::size_t i = pick(live_.size());
        std::swap(live_[i], live_.back());
        const Live gone = live_.back();
        live_.pop_back();
        const When when = pick(3) == 0 ? When::after_invalidation : When::now;
        const auto released = subject_->release(Iova(gone.start), gone.size, when);
        ASSERT_TRUE(released.has_value()) << to_string(released.error());
        model_.remove(gone.start);
        const auto again = subject_->release(Iova(gone.start), gone.size);
        ASSERT_FALSE(again.has_value());
        ASSERT_EQ(again.error().code(), ErrorCode::not_found);
    }

    void misuse() {
        if (live_.empty())
            return;
        const Live& any = live_[pick(live_.size())];
        const auto wrong_size = subject_->release(
            Iova(any.start), ByteCount(model_.rounded(any.size.value()) + granule_));
        ASSERT_FALSE(wrong_size.has_value());
        ASSERT_EQ(wrong_size.error().code(), ErrorCode::mismatch);
        ASSERT_EQ(*wrong_size.error().find("iova"), any.start);
        const std::uint64_t elsewhere = pick(shape_.aperture_bytes) & ~(granule_ - 1);
        if (!model_.has(elsewhere)) {
            ASSERT_FALSE(subject_->release(Iova(elsewhere), ByteCount(granule_)).has_value());
        }
        ASSERT_FALSE(subject_->release(Iova(any.start + 1), any.size).has_value());
    }

    void check_stats() {
        const Stats stats = subject_->stats();
        ASSERT_EQ(stats.live_ranges, live_.size());
        ASSERT_EQ(stats.live.value(), model_.bytes());
        ASSERT_EQ(stats.live + stats.cached + stats.quarantined + stats.queued + stats.guard +
                      stats.free,
                  free_at_start_);
    }

    const Shape& shape_;
    unsigned granule_lg2_;
    std::uint64_t granule_;
    std::mt19937_64 random_;
    testing::Model model_;
    Subject::Owner subject_;
    ByteCount free_at_start_{};
    std::vector<Live> live_;
};

class AllocatorModel : public ::testing::TestWithParam<std::tuple<std::size_t, unsigned>> {};

std::vector<std::uint64_t> seeds() {
    if (const char* chosen = std::getenv("MOAT_SEED"))
        return {std::strtoull(chosen, nullptr, 0)};
    return {1, 2, 3, 4};
}

TEST_P(AllocatorModel, agrees_with_intervals) {
    const auto& [shape, granule_lg2] = GetParam();
    for (const std::uint64_t seed : seeds()) {
        SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
        Session session(shapes[shape], granule_lg2, seed);
        for (int i = 0; i != 6000; ++i) {
            session.step();
            if (HasFatalFailure()) {
                ADD_FAILURE() << "at step " << i;
                return;
            }
        }
        session.finish();
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AllocatorModel,
                         ::testing::Combine(::testing::Range<std::size_t>(0, shapes.size()),
                                            ::testing::Values(12U, 14U, 16U)),
                         [](const auto& each) {
                             return std::string(shapes[std::get<0>(each.param)].name) + "_" +
                                    std::to_string(1U << (std::get<1>(each.param) - 10)) + "K";
                         });

} // namespace

} // namespace moat::iova
