// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// iova: Allocator, with every field of Config and Request, and the guard policies.
// No number here is a precondition.
#include "moat/core/text.hpp"
#include "moat/iova/allocator.hpp"
#include "moat/sync/real.hpp"

#include "contract.hpp"

#include <array>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using iova::FixedGuard;
using iova::RandomGuard;
using iova::Request;
using iova::Source;
using iova::When;
using Allocator = iova::Allocator<RealSync, FixedGuard>;

constexpr std::uint64_t good = 0x40000;

iova::Config config_of(std::span<const IovaRange> aperture, unsigned granule_lg2) {
    return {.aperture = aperture,
            .granule_lg2 = granule_lg2,
            .invalidation = {[](void*) { return Result<void>(); }, nullptr},
            .fixed_window = IovaRange(Iova(0xfee0'0000), ByteCount(0x10'0000))};
}

/// An allocator of the space below 2^48, with a live range and a live list.
class Addresses {
  public:
    explicit Addresses(unsigned granule_lg2) : granule_lg2_(granule_lg2) { reset(); }

    void reset() {
        allocator_.reset();
        const std::array aperture = {IovaRange(Iova(0), ByteCount(1ULL << 48))};
        const FixedGuard guard = {.before = ByteCount(4096), .after = ByteCount(4096)};
        allocator_ = std::move(*Allocator::create(config_of(aperture, granule_lg2_), guard));
        live = allocator_->allocate({.extent = ByteCount(good)})->value();
        list = allocator_->allocate({.extent = std::span<const ByteCount>(segments)})->value();
    }

    [[nodiscard]] Allocator& allocator() const { return *allocator_; }

    [[nodiscard]] std::uint64_t page() const { return bit(granule_lg2_); }

    /// What can be allocated, and what is; ranges that wait in a cache can.
    [[nodiscard]] std::string state() const {
        const iova::Stats s = allocator_->stats();
        const std::uint64_t all =
            (s.live + s.cached + s.quarantined + s.queued + s.guard + s.free).value();
        return std::to_string(s.live_ranges) + " ranges, " + to_string(s.live) + " of " +
               hexadecimal(all);
    }

    std::uint64_t live = 0;
    std::uint64_t list = 0;
    std::array<ByteCount, 3> segments = {ByteCount(0x10000), ByteCount(0x20000), ByteCount(1)};

  private:
    const unsigned granule_lg2_;
    Allocator::Owner allocator_;
};

Outcome allocate(Addresses& addresses, const Request& request) {
    const Result<Iova> iova = addresses.allocator().allocate(request);
    if (!iova)
        return iova.error();
    EXPECT_TRUE(is_aligned(iova->value(), alignment_lg2(addresses.page())));
    EXPECT_TRUE(!request.at || *request.at == *iova);
    EXPECT_TRUE(addresses.allocator().release(*iova, request.extent));
    return returned;
}

Request request_of(Values v) {
    return {.extent = ByteCount(v[0]),
            .placement = {.modulus_lg2 = static_cast<unsigned>(v[1]), .like = v[2]},
            .last = Iova(v[3])};
}

const std::vector<Argument> request_arguments = {
    {.name = "size", .good = good},
    {.name = "modulus_lg2", .good = 21, .bits = 32, .more = {48, 57, 58, 65}},
    {.name = "like", .good = 0x1000},
    {.name = "last", .good = 0xffff'ffff}};

std::vector<Row> allocations(unsigned granule_lg2) {
    const auto system = std::make_shared<Addresses>(granule_lg2);
    const auto state = [=] { return system->state(); };
    return {
        {.name = "allocate",
         .arguments = {{.name = "size", .good = good}},
         .call = [=](Values v) { return allocate(*system, {.extent = ByteCount(v[0])}); },
         .state = state},
        {.name = "allocate, placed",
         .arguments = request_arguments,
         .call = [=](Values v) { return allocate(*system, request_of(v)); },
         .state = state},
        {.name = "allocate, at",
         .arguments = {{.name = "size", .good = good},
                       {.name = "at", .good = 1ULL << 40},
                       {.name = "last", .good = ~0ULL, .named = false}},
         .call =
             [=](Values v) {
                 return allocate(*system,
                                 {.extent = ByteCount(v[0]), .last = Iova(v[2]), .at = Iova(v[1])});
             },
         .state = state},
        {.name = "allocate, window",
         .arguments = {{.name = "size", .good = good}},
         .call =
             [=](Values v) {
                 return allocate(*system,
                                 {.extent = ByteCount(v[0]), .source = Source::fixed_window});
             },
         .state = state},
        {.name = "allocate, list",
         .arguments = {{.name = "first", .good = good, .named = false},
                       {.name = "second", .good = good, .named = false},
                       {.name = "modulus_lg2", .good = 0, .bits = 32}},
         .call =
             [=](Values v) {
                 const std::array segments = {ByteCount(v[0]), ByteCount(v[1])};
                 return allocate(*system, {.extent = std::span<const ByteCount>(segments),
                                           .placement = {static_cast<unsigned>(v[2])}});
             },
         .state = state},
    };
}

std::vector<Row> releases(unsigned granule_lg2) {
    const auto system = std::make_shared<Addresses>(granule_lg2);
    const auto state = [=] { return system->state(); };
    const auto undo = [=](const Result<void>& done, bool right) {
        EXPECT_TRUE(right || !done) << "the call should have failed";
        return reset_after(*system, done);
    };
    const auto same_pages = [=](std::uint64_t size) {
        return iova::whole_pages(ByteCount(size), granule_lg2) == good >> 12;
    };
    const std::vector<Argument> iova_and_size = {{.name = "iova", .good = system->live},
                                                 {.name = "size", .good = good}};
    std::vector<Row> rows;
    for (const When when : {When::now, When::after_invalidation})
        rows.push_back({.name = when == When::now ? "release" : "release, queued",
                        .arguments = iova_and_size,
                        .call =
                            [=](Values v) {
                                return undo(
                                    system->allocator().release(Iova(v[0]), ByteCount(v[1]), when),
                                    v[0] == system->live && same_pages(v[1]));
                            },
                        .state = state});
    rows.push_back(
        {.name = "release, window",
         .arguments = {{.name = "iova", .good = 0xfee0'0000}, {.name = "size", .good = good}},
         .call =
             [=](Values v) {
                 const auto iova = system->allocator().allocate(
                     {.extent = ByteCount(good), .source = Source::fixed_window});
                 EXPECT_EQ(iova->value(), 0xfee0'0000U);
                 const auto done = system->allocator().release(Iova(v[0]), ByteCount(v[1]));
                 if (!done) {
                     EXPECT_TRUE(system->allocator().release(*iova, ByteCount(good)));
                     return outcome(done);
                 }
                 return undo(done,
                             v[0] == system->live || (v[0] == iova->value() && same_pages(v[1])));
             },
         .state = state});
    rows.push_back(
        {.name = "release, list",
         .arguments = {{.name = "iova", .good = system->list},
                       {.name = "first", .good = 0x10000},
                       {.name = "second", .good = 0x20000}},
         .call =
             [=](Values v) {
                 const std::array segments = {ByteCount(v[1]), ByteCount(v[2]), ByteCount(1)};
                 return undo(
                     system->allocator().release(Iova(v[0]), std::span<const ByteCount>(segments)),
                     v[0] == system->list);
             },
         .state = state});
    return rows;
}

std::vector<Row> others(unsigned granule_lg2) {
    const auto system = std::make_shared<Addresses>(granule_lg2);
    const auto state = [=] { return system->state(); };
    std::vector<Row> rows;
    rows.push_back(
        {.name = "segment_offset",
         .arguments = {{.name = "iova", .good = system->list},
                       {.name = "index", .good = 1},
                       {.name = "first", .good = 0x10000}},
         .call =
             [=](Values v) {
                 const std::array segments = {ByteCount(v[2]), ByteCount(0x20000), ByteCount(1)};
                 const auto offset = system->allocator().segment_offset(Iova(v[0]), segments, v[1]);
                 EXPECT_TRUE(!offset || v[0] == system->list);
                 return outcome(offset);
             },
         .state = state});
    rows.push_back(
        {.name = "reserve",
         .arguments = {{.name = "start", .good = 1ULL << 40}, {.name = "size", .good = good}},
         .call =
             [=](Values v) {
                 const auto range = IovaRange::make(Iova(v[0]), ByteCount(v[1]));
                 return range ? reset_after(*system, system->allocator().reserve(*range))
                              : outcome(range);
             },
         .state = state});
    return rows;
}

class IovaContracts : public ::testing::TestWithParam<unsigned> {};

TEST_P(IovaContracts, Allocate) {
    expect_contracts([] { return allocations(GetParam()); }, bit(GetParam()));
}

TEST_P(IovaContracts, ReleaseAndReserve) {
    expect_contracts([] { return releases(GetParam()); }, bit(GetParam()));
    expect_contracts([] { return others(GetParam()); }, bit(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Granule, IovaContracts, ::testing::Values(12, 14, 16));

/// Creates an allocator and uses it: a config that creation accepts must work.
template <class Guard>
Outcome create(const iova::Config& config, const Guard& guard) {
    auto made = iova::Allocator<RealSync, Guard>::create(config, guard);
    if (!made)
        return made.error();
    for (const When when : {When::now, When::after_invalidation, When::now}) {
        const auto iova = (*made)->allocate({.extent = ByteCount(1)});
        if (!iova)
            return returned; // nothing was left between the guards
        const auto in = [&](const IovaRange& range) { return range.contains(*iova); };
        EXPECT_TRUE(std::ranges::any_of(config.aperture, in)) << *iova;
        EXPECT_TRUE((*made)->release(*iova, ByteCount(1), when));
    }
    const auto fixed =
        (*made)->allocate({.extent = ByteCount(1), .source = iova::Source::fixed_window});
    EXPECT_TRUE(!fixed || config.fixed_window->contains(*fixed)) << *fixed;
    return returned;
}

/// The outcome of `change` with a config whose aperture is the first two values.
template <class Change>
Outcome with(Values v, const Change& change) {
    const auto first = IovaRange::make(Iova(v[0]), ByteCount(v[1]));
    if (!first)
        return first.error();
    const std::array aperture = {*first};
    iova::Config config = config_of(aperture, 12);
    config.fixed_window.reset();
    return change(config);
}

const std::vector<Argument> aperture = {{.name = "start", .good = 0x1000'0000},
                                        {.name = "size", .good = 1ULL << 32}};

std::vector<Argument> and_more(std::vector<Argument> more) {
    more.insert(more.begin(), aperture.begin(), aperture.end());
    return more;
}

std::vector<Row> creations() {
    return {
        {.name = "create",
         .arguments = and_more(
             {{.name = "granule_lg2", .good = 12, .bits = 32}, {.name = "seed", .good = 1}}),
         .call =
             [](Values v) {
                 return with(v, [&](iova::Config& config) {
                     config.granule_lg2 = static_cast<unsigned>(v[2]);
                     config.seed = v[3];
                     return create(config, iova::NoGuard());
                 });
             }},
        {.name = "create, window",
         .arguments = and_more(
             {{.name = "window", .good = 0xfee0'0000}, {.name = "window_size", .good = 0x10'0000}}),
         .call =
             [](Values v) {
                 return with(v, [&](iova::Config& config) {
                     const auto window = IovaRange::make(Iova(v[2]), ByteCount(v[3]));
                     if (!window)
                         return outcome(window);
                     config.fixed_window = *window;
                     return create(config, iova::NoGuard());
                 });
             }},
    };
}

std::vector<Row> creations_with_guards() {
    return {
        {.name = "create, quarantine",
         .arguments = {{.name = "bytes", .good = 0x100000},
                       {.name = "entries", .good = 16},
                       {.name = "nanoseconds", .good = 1000},
                       {.name = "flush_delay", .good = 1000}},
         .call =
             [](Values v) {
                 const std::array good_aperture = {std::uint64_t{0x1000'0000},
                                                   std::uint64_t{1} << 32};
                 return with(std::span(good_aperture), [&](iova::Config& config) {
                     config.quarantine = {ByteCount(v[0]), v[1], v[2]};
                     config.flush_delay_nanoseconds = v[3];
                     return create(config, iova::NoGuard());
                 });
             }},
        // The errors have the widths in pages.
        {.name = "create, guard",
         .arguments = and_more({{.name = "before", .good = 4096, .named = false},
                                {.name = "after", .good = 4096, .named = false}}),
         .call =
             [](Values v) {
                 return with(v, [&](iova::Config& config) {
                     return create(config, FixedGuard{ByteCount(v[2]), ByteCount(v[3])});
                 });
             }},
        {.name = "create, random guard",
         .arguments = {{.name = "least before", .good = 4096, .named = false},
                       {.name = "least after", .good = 4096, .named = false},
                       {.name = "most before", .good = 65536, .named = false},
                       {.name = "most after", .good = 65536, .named = false}},
         .call =
             [](Values v) {
                 const std::array good_aperture = {std::uint64_t{0x1000'0000},
                                                   std::uint64_t{1} << 32};
                 return with(std::span(good_aperture), [&](iova::Config& config) {
                     return create(config, RandomGuard{{ByteCount(v[0]), ByteCount(v[1])},
                                                       {ByteCount(v[2]), ByteCount(v[3])}});
                 });
             }},
    };
}

TEST(IovaContracts, Create) {
    expect_contracts(creations);
    expect_contracts(creations_with_guards);
}

} // namespace
} // namespace moat::tests
