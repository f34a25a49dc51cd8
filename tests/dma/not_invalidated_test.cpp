// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A DMA space over an IOMMU that fails to invalidate: the error reaches the caller, and the range
// is reported and never used again. An unmap that does not match one mapping leaves the tables
// unchanged.
#include "moat/core/text.hpp"

#include "machine/domain.hpp"
#include "space_system.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <gtest/gtest.h>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace moat::tests {
namespace {

using namespace moat::literals;
using dma::Direction;
using dma::DriverErrorKind;
using dma::Level;
using dma::Unmapping;

/// Generations that fail on request: in strict unmaps, or in the invalidation of deferred ones.
struct FailingInvalidator : iommu::Generations<RealSync> {
    using Base = iommu::Generations<RealSync>;

    std::atomic<bool> fails_ranges = false;
    std::atomic<bool> fails_all = false;

    Result<void> invalidate(const InvalidationRequest<Iova>& request) {
        Base::invalidate(request);
        return outcome(fails_ranges);
    }

    Result<void> invalidate_all() {
        Base::invalidate_all();
        return outcome(fails_all);
    }

  private:
    static Result<void> outcome(bool fails) {
        if (!fails)
            return {};
        return fail(ErrorCode::io, "the test's unit does not answer");
    }
};

/// Its maps fail on request too, with io as if hardware rejected an invalidation for new entries.
struct FailingDomain : iommu::SoftDomain<SoftTree, FailingInvalidator> {
    using Base = iommu::SoftDomain<SoftTree, FailingInvalidator>;

    explicit FailingDomain(Table table) : Base(std::move(table)) {}

    Result<void> map(Iova start, ByteCount size, PhysicalAddress memory, Attributes how) {
        if (maps_fail == ErrorCode::empty)
            return Base::map(start, size, memory, how);
        return fail(maps_fail, "the test's unit cannot map");
    }

    Result<void> map_all(std::span<const iommu::Piece> pieces, Attributes how) {
        if (maps_fail == ErrorCode::empty)
            return Base::map_all(pieces, how);
        return fail(maps_fail, "the test's unit cannot map");
    }

    ErrorCode maps_fail = ErrorCode::empty; ///< none
};

/// The reports, including those from a timer's thread.
class Errors {
  public:
    [[nodiscard]] dma::Listener listener() {
        return {nullptr,
                [](void* context, const dma::DriverError& error) noexcept {
                    auto& self = *static_cast<Errors*>(context);
                    const std::lock_guard lock(self.mutex_);
                    self.errors_.push_back(error);
                    self.came_.notify_all();
                },
                this};
    }

    [[nodiscard]] std::vector<dma::DriverError> take() {
        const std::lock_guard lock(mutex_);
        return std::exchange(errors_, {});
    }

    /// Waits for this number of reports.
    [[nodiscard]] std::vector<dma::DriverError> take(std::size_t count) {
        std::unique_lock lock(mutex_);
        came_.wait(lock, [&] { return errors_.size() >= count; });
        return std::exchange(errors_, {});
    }

  private:
    std::mutex mutex_;
    std::condition_variable came_;
    std::vector<dma::DriverError> errors_;
};

struct Over {
    using Space = dma::Space<FailingDomain, RealSync>;

    explicit Over(const dma::Options& options)
        : space(*Space::create(
              domain,
              {.options = options, .listener = errors.listener(), .pages = dma::own_pages()})) {}

    OwnTables tables{1024};
    FailingDomain domain{*FailingDomain::Table::create(tables.pool())};
    Errors errors;
    std::unique_ptr<Space> space;
};

class NotInvalidated : public ::testing::TestWithParam<std::tuple<Level, Unmapping>> {
  protected:
    [[nodiscard]] static Level level() { return std::get<0>(GetParam()); }

    [[nodiscard]] static bool deferred() { return std::get<1>(GetParam()) == Unmapping::deferred; }

    /// As this level records it.
    void expect_reported(const std::vector<dma::DriverError>& errors, Iova iova, ByteCount size) {
        ASSERT_EQ(errors.size(), 1U);
        EXPECT_EQ(errors[0].kind, DriverErrorKind::not_invalidated);
        EXPECT_EQ(errors[0].range, IovaRange(iova, size));
        EXPECT_EQ(errors[0].mapping.label, level() == Level::guard ? "" : "ring");
        EXPECT_EQ(summary(errors[0]).starts_with("not-invalidated: "), true);
    }

    void fail_from_now_on(bool fails) {
        system.domain.invalidator().fails_ranges = fails;
        system.domain.invalidator().fails_all = fails;
    }

    const Buffer buffer{16 * 4096};
    const dma::Memory page = dma::Memory::own(buffer.bytes().first(4096));
    Over system{{.level = level(),
                 .unmapping = std::get<1>(GetParam()),
                 .history = 1 << 16,
                 .cpu = dma::CpuWatch::off}}; // memory that a checker watches is unmapped strictly
    Over::Space& space = *system.space;
};

TEST_P(NotInvalidated, is_an_error_that_travels_and_a_range_that_is_held) {
    const Iova iova = *space.map(page, Direction::bidirectional, "ring");
    fail_from_now_on(true);
    const auto unmapped = space.unmap(iova, 4096_B, Direction::bidirectional);
    EXPECT_EQ(unmapped.has_value(), deferred());
    const auto flushed = space.flush();
    EXPECT_EQ(flushed.has_value(), !deferred());
    for (const auto& each : {unmapped, flushed})
        if (!each) {
            EXPECT_EQ(each.error().code(), ErrorCode::io);
        }
    expect_reported(system.errors.take(1), iova, 4096_B);
    fail_from_now_on(false);
    EXPECT_TRUE(space.flush());
    EXPECT_FALSE(space.unmap(iova, 4096_B, Direction::bidirectional));
    EXPECT_EQ(space.stats().held, 4096_B);
    EXPECT_EQ(space.stats().live_ranges, 0U);
}

TEST_P(NotInvalidated, is_never_used_again_whatever_happens) {
    std::mt19937_64 random(7);
    std::map<Iova, ByteCount> live;
    std::vector<IovaRange> held;
    const auto note = [&] {
        for (const dma::DriverError& each : system.errors.take()) {
            ASSERT_EQ(each.kind, DriverErrorKind::not_invalidated);
            held.push_back(each.range);
        }
    };
    for (int turn = 0; turn != 4000; ++turn) {
        fail_from_now_on(random() % 8 == 0);
        if (live.empty() || random() % 2 == 0) {
            const ByteCount size((1 + random() % 4) << 12);
            const auto memory = dma::Memory::own(buffer.bytes().first(size.value()));
            const auto iova = space.map(memory, Direction::bidirectional, "ring");
            ASSERT_TRUE(iova);
            const IovaRange range(*iova, size);
            for (const IovaRange& each : held)
                ASSERT_FALSE(each.overlaps(range)) << each << " is used again by " << range;
            live.emplace(*iova, size);
        } else {
            const auto any =
                std::next(live.begin(), static_cast<std::ptrdiff_t>(random() % live.size()));
            const auto unmapped = space.unmap(any->first, any->second, Direction::bidirectional);
            ASSERT_TRUE(unmapped || unmapped.error().code() == ErrorCode::io);
            live.erase(any);
        }
        if (deferred() && turn % 16 == 0)
            (void)space.flush();
        note();
    }
    fail_from_now_on(false);
    for (const auto& [iova, size] : live)
        EXPECT_TRUE(space.unmap(iova, size, Direction::bidirectional));
    EXPECT_TRUE(space.flush());
    const std::uint64_t ranges = space.stats().held_ranges;
    for (const dma::DriverError& each : system.errors.take(ranges - held.size()))
        held.push_back(each.range);
    ByteCount bytes{};
    for (const IovaRange& each : held)
        bytes += each.size();
    EXPECT_EQ(space.stats().held, bytes) << "each is reported once";
    EXPECT_EQ(space.stats().live_ranges, 0U);
    EXPECT_GT(held.size(), 10U);
}

TEST_P(NotInvalidated, ends_with_its_space) {
    {
        Over ends{
            {.level = level(), .unmapping = std::get<1>(GetParam()), .cpu = dma::CpuWatch::off}};
        const Iova iova = *ends.space->map(page, Direction::bidirectional, "ring");
        ends.domain.invalidator().fails_all = true;
        ends.domain.invalidator().fails_ranges = true;
        (void)ends.space->unmap(iova, 4096_B, Direction::bidirectional);
        ends.space.reset();
        expect_reported(ends.errors.take(1), iova, 4096_B);
    } // its tables are released
}

INSTANTIATE_TEST_SUITE_P(Levels, NotInvalidated,
                         ::testing::Combine(::testing::Values(Level::guard, Level::track),
                                            ::testing::Values(Unmapping::strict,
                                                              Unmapping::deferred)));

TEST(TimersFlush, is_reported_where_it_fails_and_the_next_flush_fails_too) {
    for (const Level level : {Level::guard, Level::track}) {
        const Buffer buffer(4096);
        Over timed{{.level = level, .unmapping = Unmapping::deferred, .cpu = dma::CpuWatch::off}};
        const Iova iova =
            *timed.space->map(dma::Memory::own(buffer.bytes()), Direction::bidirectional, "ring");
        timed.domain.invalidator().fails_all = true;
        EXPECT_TRUE(timed.space->unmap(iova, 4096_B, Direction::bidirectional));
        const auto errors = timed.errors.take(1); // no other thread flushes
        ASSERT_EQ(errors.size(), 1U);
        EXPECT_EQ(errors[0].kind, DriverErrorKind::not_invalidated);
        EXPECT_EQ(errors[0].range, IovaRange(iova, 4096_B));
        EXPECT_EQ(errors[0].mapping.label, level == Level::guard ? "" : "ring");
        EXPECT_EQ(timed.space->stats().held, 4096_B);
        EXPECT_EQ(timed.space->flush().error().code(), ErrorCode::io) << "nothing is invalidated";
        timed.domain.invalidator().fails_all = false;
        EXPECT_TRUE(timed.space->flush());
    }
}

TEST(HalfMapped, is_held_and_everything_else_given_back) {
    Over system{{.level = Level::guard}};
    const Buffer buffer(8192);
    const auto memory = dma::Memory::own(buffer.bytes().first(4096));
    const std::array pieces = {memory, dma::Memory::own(buffer.bytes().subspan(4096))};
    std::array<dma::Segment, 2> segments;
    const auto map_each_way = [&](ErrorCode expected) {
        EXPECT_EQ(system.space->map(memory, Direction::to_device).error().code(), expected);
        EXPECT_EQ(system.space->map_coherent(memory).error().code(), expected);
        EXPECT_EQ(system.space->map_list(pieces, Direction::to_device, segments).error().code(),
                  expected);
    };
    system.domain.maps_fail = ErrorCode::no_memory;
    map_each_way(ErrorCode::no_memory);
    EXPECT_EQ(system.space->stats().held, 0_B);
    EXPECT_EQ(system.space->stats().live_ranges, 0U);
    EXPECT_TRUE(system.errors.take().empty());
    system.domain.maps_fail = ErrorCode::io;
    map_each_way(ErrorCode::io);
    EXPECT_EQ(system.space->stats().held_ranges, 3U);
    EXPECT_EQ(system.space->stats().live_ranges, 0U);
    const auto errors = system.errors.take();
    EXPECT_EQ(errors.size(), 3U);
    for (const dma::DriverError& each : errors)
        EXPECT_EQ(each.kind, DriverErrorKind::not_invalidated);
}

/// A domain that does not defer, as a kernel's.
class StrictDomain final : public machine::Domain {
  public:
    [[nodiscard]] const iommu::DomainLimits& limits() const override { return limits_; }

    Result<void> map(Iova, ByteCount, PhysicalAddress, Attributes) override { return {}; }

    Result<void> unmap(Iova, ByteCount) override { return {}; }

  private:
    iommu::DomainLimits limits_{.aperture = {Iova(0), ByteCount(1ULL << 40)}, .leaf_sizes = 4096};
};

TEST(Deferral, is_refused_where_the_limits_do_not_have_it) {
    using Space = dma::Space<machine::Domain, RealSync>;
    StrictDomain domain;
    const auto refused = Space::create(
        domain, {.options = {.unmapping = Unmapping::deferred, .cpu = dma::CpuWatch::off}});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(refused.error().sentence()).find("strict"), std::string::npos);
    EXPECT_TRUE(Space::create(domain, {.options = {.unmapping = Unmapping::strict}}));
    OwnTables tables;
    EXPECT_TRUE(SoftDomain(empty_table(tables)).limits().defers);
}

/// Two adjacent mappings, with no guard between them.
class Neighbours : public ::testing::TestWithParam<Unmapping> {
  protected:
    Neighbours() {
        const auto pages = dma::Memory::own(buffer.bytes());
        std::vector<Iova> all;
        for (int i = 0; i != 32; ++i)
            all.push_back(*system.space->map(pages, Direction::bidirectional));
        std::ranges::sort(all);
        const auto first = std::ranges::adjacent_find(
            all, [](Iova left, Iova right) { return right.value() - left.value() == 8192; });
        EXPECT_NE(first, all.end()) << "a mapping follows another";
        iovas = {first[0], first[1]};
        for (const Iova each : all)
            if (std::ranges::count(iovas, each) == 0) {
                EXPECT_TRUE(system.space->unmap(each, 8192_B, Direction::bidirectional));
            }
        EXPECT_TRUE(system.space->flush());
    }

    void expect_refused(std::uint64_t iova, std::uint64_t size) {
        const auto refused =
            system.space->unmap(Iova(iova), ByteCount(size), Direction::bidirectional);
        ASSERT_FALSE(refused) << std::hex << iova << ' ' << size;
        EXPECT_NE(refused.error().find("iova"), nullptr);
        (void)system.space->flush();
        for (const Iova each : iovas)
            for (const std::uint64_t offset : {0, 4096})
                ASSERT_TRUE(system.write(each.value() + offset, 1).complete())
                    << std::hex << iova << ' ' << size;
        ASSERT_EQ(system.space->stats().live, 16384_B);
    }

    const Buffer buffer{8192};
    System system{{.level = Level::guard, .guard = {}, .unmapping = GetParam()}};
    std::array<Iova, 2> iovas;
};

TEST_P(Neighbours, keep_their_pages_whatever_size_is_unmapped) {
    constexpr std::uint64_t most = ~std::uint64_t{0};
    const std::uint64_t first = iovas[0].value();
    for (const std::uint64_t size :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4095}, std::uint64_t{4096},
          std::uint64_t{8193}, std::uint64_t{12288}, std::uint64_t{16384}, std::uint64_t{1} << 21,
          std::uint64_t{1} << 62, std::uint64_t{1} << 63, most - 8191, most - 4096, most - 4095,
          most})
        expect_refused(first, size);
    // Offsets in a page with which a size can wrap to a page or two.
    for (const std::uint64_t offset : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{4095}})
        for (const std::uint64_t size :
             {std::uint64_t{0}, most, most - 1, most - 4095, most - 4096})
            expect_refused(first + offset, size);
    for (const std::uint64_t iova : {first + 4096, std::uint64_t{0}, most, most - 4095,
                                     std::uint64_t{1} << 63, first + (std::uint64_t{1} << 30)})
        for (const std::uint64_t size :
             {std::uint64_t{1}, std::uint64_t{4096}, std::uint64_t{8192}})
            expect_refused(iova, size);
    for (const Iova each : iovas)
        EXPECT_TRUE(system.space->unmap(each, 8192_B, Direction::bidirectional));
    EXPECT_TRUE(system.space->flush());
    for (const Iova each : iovas)
        EXPECT_EQ(system.space->unmap(each, 8192_B, Direction::bidirectional).error().code(),
                  ErrorCode::not_found);
}

TEST_P(Neighbours, sizes_that_wrap_unmap_nothing) {
    const auto page = dma::Memory::own(buffer.bytes().first(4096));
    // A page that this thread has unmapped before uses the fast path.
    ASSERT_TRUE(system.space->unmap(*system.space->map(page, Direction::bidirectional), 4096_B,
                                    Direction::bidirectional));
    ASSERT_TRUE(system.space->flush());
    const Iova iova = *system.space->map(page, Direction::bidirectional);
    constexpr std::uint64_t most = ~std::uint64_t{0};
    for (const std::uint64_t offset : {1, 2, 4095})
        for (const std::uint64_t size : {std::uint64_t{0}, most, most - 1, most - 4094}) {
            const auto refused = system.space->unmap(Iova(iova.value() + offset), ByteCount(size),
                                                     Direction::bidirectional);
            ASSERT_FALSE(refused) << offset << ' ' << size;
            (void)system.space->flush();
            ASSERT_TRUE(system.write(iova.value(), 1).complete()) << offset << ' ' << size;
        }
    EXPECT_TRUE(system.space->unmap(iova, 4096_B, Direction::bidirectional));
}

INSTANTIATE_TEST_SUITE_P(Both, Neighbours,
                         ::testing::Values(Unmapping::strict, Unmapping::deferred));

} // namespace
} // namespace moat::tests
