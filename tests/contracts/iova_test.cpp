// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// iova: Allocator, with every field of Config and Request.
// No number here is a precondition.
#include "moat/core/text.hpp"
#include "moat/iova/allocator.hpp"
#include "moat/sync/real.hpp"

#include "contract.hpp"

#include <array>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using iova::Request;
using iova::When;
using Allocator = iova::Allocator<RealSync>;

constexpr std::uint64_t good_size = 0x40000;

iova::Config config_of(std::span<const IovaRange> aperture, unsigned granule_lg2) {
    return {.aperture = aperture,
            .granule_lg2 = granule_lg2,
            .invalidation = {[](void*) { return Result<void>(); }, nullptr}};
}

/// An allocator of the space below 2^48, with a live range.
class Addresses {
  public:
    explicit Addresses(unsigned granule_lg2) : granule_lg2_(granule_lg2) { reset(); }

    void reset() {
        allocator_.reset();
        const std::array aperture = {IovaRange(Iova(0), ByteCount(1ULL << 48))};
        iova::Config config = config_of(aperture, granule_lg2_);
        config.guard = {.before = ByteCount(4096), .after = ByteCount(4096)};
        allocator_ = std::move(*Allocator::create(config));
        live = allocator_->allocate({.size = ByteCount(good_size)})->value();
    }

    [[nodiscard]] Allocator& allocator() const { return *allocator_; }

    [[nodiscard]] std::uint64_t page() const { return bit(granule_lg2_); }

    /// Free and allocated ranges; ranges in a cache count as free.
    [[nodiscard]] std::string state() const {
        const iova::Stats s = allocator_->stats();
        const std::uint64_t all =
            (s.live + s.cached + s.quarantined + s.queued + s.guard + s.free).value();
        return std::to_string(s.live_ranges) + " ranges, " + to_string(s.live) + " of " +
               hexadecimal(all);
    }

    std::uint64_t live = 0;

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
    EXPECT_TRUE(addresses.allocator().release(*iova, request.size));
    return returned;
}

Request request_of(Values v) {
    return {.size = ByteCount(v[0]),
            .placement = {.modulus_lg2 = static_cast<unsigned>(v[1]), .like = v[2]},
            .last = Iova(v[3])};
}

const std::vector<Argument> request_arguments = {
    {.name = "size", .good = good_size},
    {.name = "modulus_lg2", .good = 21, .bits = 32, .more = {48, 57, 58, 65}},
    {.name = "like", .good = 0x1000},
    {.name = "last", .good = 0xffff'ffff}};

std::vector<Row> allocations(unsigned granule_lg2) {
    const auto system = std::make_shared<Addresses>(granule_lg2);
    const auto state = [=] { return system->state(); };
    return {
        {.name = "allocate",
         .arguments = {{.name = "size", .good = good_size}},
         .call = [=](Values v) { return allocate(*system, {.size = ByteCount(v[0])}); },
         .state = state},
        {.name = "allocate, placed",
         .arguments = request_arguments,
         .call = [=](Values v) { return allocate(*system, request_of(v)); },
         .state = state},
        {.name = "allocate, at",
         .arguments = {{.name = "size", .good = good_size},
                       {.name = "at", .good = 1ULL << 40},
                       {.name = "last", .good = ~0ULL, .named = false}},
         .call =
             [=](Values v) {
                 return allocate(*system,
                                 {.size = ByteCount(v[0]), .last = Iova(v[2]), .at = Iova(v[1])});
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
        return iova::whole_pages(ByteCount(size), granule_lg2) == good_size >> 12;
    };
    const std::vector<Argument> iova_and_size = {{.name = "iova", .good = system->live},
                                                 {.name = "size", .good = good_size}};
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
    return rows;
}

std::vector<Row> others(unsigned granule_lg2) {
    const auto system = std::make_shared<Addresses>(granule_lg2);
    const auto state = [=] { return system->state(); };
    std::vector<Row> rows;
    rows.push_back(
        {.name = "reserve",
         .arguments = {{.name = "start", .good = 1ULL << 40}, {.name = "size", .good = good_size}},
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

TEST_P(IovaContracts, allocate_takes_any_number) {
    expect_contracts([] { return allocations(GetParam()); }, bit(GetParam()));
}

TEST_P(IovaContracts, release_and_reserve_take_any_number) {
    expect_contracts([] { return releases(GetParam()); }, bit(GetParam()));
    expect_contracts([] { return others(GetParam()); }, bit(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Granule, IovaContracts, ::testing::Values(12, 14, 16));

/// Creates an allocator and uses it: a config that creation accepts must work.
Outcome create_allocator(const iova::Config& config) {
    auto made = Allocator::create(config);
    if (!made)
        return made.error();
    for (const When when : {When::now, When::after_invalidation, When::now}) {
        const auto iova = (*made)->allocate({.size = ByteCount(1)});
        if (!iova)
            return returned; // the guards leave no room
        const auto in = [&](const IovaRange& range) { return range.contains(*iova); };
        EXPECT_TRUE(std::ranges::any_of(config.aperture, in)) << *iova;
        EXPECT_TRUE((*made)->release(*iova, ByteCount(1), when));
    }
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
    return change(config);
}

const std::vector<Argument> aperture = {{.name = "start", .good = 0x1000'0000},
                                        {.name = "size", .good = 1ULL << 32}};

std::vector<Argument> and_more(std::vector<Argument> more) {
    more.insert(more.begin(), aperture.begin(), aperture.end());
    return more;
}

std::vector<Row> iova_creations() {
    return {
        {.name = "create",
         .arguments = and_more({{.name = "granule_lg2", .good = 12, .bits = 32}}),
         .call =
             [](Values v) {
                 return with(v, [&](iova::Config& config) {
                     config.granule_lg2 = static_cast<unsigned>(v[2]);
                     return create_allocator(config);
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
                     return create_allocator(config);
                 });
             }},
        {.name = "create, guard",
         .arguments = and_more({{.name = "before", .good = 4096}, {.name = "after", .good = 4096}}),
         .call =
             [](Values v) {
                 return with(v, [&](iova::Config& config) {
                     config.guard = {ByteCount(v[2]), ByteCount(v[3])};
                     return create_allocator(config);
                 });
             }},
    };
}

TEST(IovaContracts, creation_takes_any_number) {
    expect_contracts(iova_creations);
    expect_contracts(creations_with_guards);
}

} // namespace
} // namespace moat::tests
