// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// dma: Space at every level, scatter lists, and every field of Options and SpaceConfig.
// A programmer's error by contract, so not a row: a Memory without its bytes, which level exact
// reads.
#include "moat/core/text.hpp"
#include "moat/dma/options.hpp"

#include "contract.hpp"
#include "dma/space_system.hpp"

#include <array>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using dma::Direction;
using dma::Level;
using dma::Memory;

constexpr std::uint64_t buffer_page = 4096;
constexpr std::uint64_t many = 4 * buffer_page;

/// `size` bytes of large_memory(); a larger size cannot be mapped.
Memory memory_of(std::uint64_t size, std::uint64_t offset = 0) {
    return Memory::own({large_memory().data() + offset, size});
}

dma::Options options_of(Level level) {
    dma::Options options;
    options.level = level;
    return options;
}

/// A space with two mappings: one of some pages, and one of 100 bytes.
class Dma {
  public:
    explicit Dma(const dma::Options& options) : options_(options) { reset(); }

    [[nodiscard]] SoftSpace& space() { return *system_->space; }

    [[nodiscard]] System& system() { return *system_; }

    /// Recreates everything, at the same addresses.
    void reset() {
        system_.reset();
        system_ = std::make_unique<System>(options_);
        const auto map = [&](std::span<std::byte> bytes, const char* label) {
            return space().map(Memory::own(bytes), Direction::bidirectional, label)->value();
        };
        large = map(pages_.bytes(), "large");
        small = map(pages_.bytes().subspan(buffer_page + 17, 100), "small");
    }

    /// Whether a device reaches both ends of each mapping.
    [[nodiscard]] std::string state() {
        std::string text;
        for (const std::uint64_t at :
             {large, large + buffer_page, large + many - 1, small, small + 99}) {
            std::array<std::byte, 1> byte{};
            text += system_->lane.read(Iova(at), byte).complete() ? '+' : '-';
        }
        system_->heard.faults.clear();
        return text + " " + std::to_string(space().stats().live_ranges) + " ranges, " +
               to_string(space().stats().live);
    }

    std::uint64_t large = 0;
    std::uint64_t small = 0;

  private:
    const dma::Options options_;
    Buffer pages_{many};
    std::unique_ptr<System> system_;
};

/// Unmaps what a call mapped.
Outcome undo(Dma& dma, const Result<Iova>& iova, std::uint64_t size, Direction direction) {
    if (iova) {
        EXPECT_TRUE(dma.space().unmap(*iova, ByteCount(size), direction));
    }
    return outcome(iova);
}

std::vector<Row> dma_maps(const dma::Options& options) {
    const auto dma = std::make_shared<Dma>(options);
    const auto state = [=] { return dma->state(); };
    return {
        {.name = "map",
         .arguments = {{.name = "size", .good = 0x1234},
                       {.name = "offset", .good = 0x10, .bits = 16}},
         .call =
             [=](Values v) {
                 const auto iova =
                     dma->space().map(memory_of(v[0], v[1]), Direction::from_device, "row");
                 return undo(*dma, iova, v[0], Direction::from_device);
             },
         .state = state},
        // Small sizes: level exact copies the bytes, which do not lie at the physical address.
        {.name = "map, physical",
         .arguments = {{.name = "physical", .good = memory_of(many).physical.value()},
                       {.name = "size", .good = many, .bits = 20}},
         .call =
             [=](Values v) {
                 Memory memory = memory_of(v[1], v[0] % buffer_page);
                 memory.physical = PhysicalAddress(v[0]);
                 return undo(*dma, dma->space().map(memory, Direction::bidirectional, "row"), v[1],
                             Direction::bidirectional);
             },
         .state = state},
    };
}

std::vector<Row> special_maps(const dma::Options& options) {
    const auto dma = std::make_shared<Dma>(options);
    const auto state = [=] { return dma->state(); };
    return {
        {.name = "map_coherent",
         .arguments = {{.name = "size", .good = 0x3000},
                       {.name = "offset", .good = 0, .bits = 16, .named = false}},
         .call =
             [=](Values v) {
                 return undo(*dma, dma->space().map_coherent(memory_of(v[0], v[1]), "row"), v[0],
                             Direction::bidirectional);
             },
         .state = state},
        {.name = "map_region",
         .arguments = {{.name = "region", .good = 1ULL << 40}, {.name = "size", .good = 0x4000}},
         .call =
             [=](Values v) {
                 return undo(*dma,
                             dma->space().map_region(PhysicalAddress(v[0]), ByteCount(v[1]),
                                                     Direction::to_device, "row"),
                             v[1], Direction::to_device);
             },
         .state = state},
        {.name = "map_list",
         .arguments = {{.name = "first", .good = 0x1000},
                       {.name = "second", .good = 0x800},
                       {.name = "longest", .good = 0xffff'ffff},
                       {.name = "boundary", .good = 0x1'0000},
                       {.name = "guard", .good = 0x1000}},
         .call =
             [=](Values v) {
                 const std::array pieces = {memory_of(v[0]), memory_of(v[1], 0x800)};
                 std::array<dma::Segment, 2> segments;
                 const auto list = dma->space().map_list(pieces, Direction::from_device, segments,
                                                         {.longest = ByteCount(v[2]),
                                                          .boundary = ByteCount(v[3]),
                                                          .guard = ByteCount(v[4])},
                                                         "row");
                 if (list) {
                     EXPECT_TRUE(
                         dma->space().unmap(list->start, list->size, Direction::from_device));
                 }
                 return outcome(list);
             },
         .state = state},
    };
}

std::vector<Row> unmaps(const dma::Options& options) {
    const auto dma = std::make_shared<Dma>(options);
    const auto state = [=] { return dma->state(); };
    const auto unmap = [=](std::uint64_t iova, std::uint64_t size) {
        return Row{.name = "unmap",
                   .arguments = {{.name = "iova", .good = iova}, {.name = "size", .good = size}},
                   .call =
                       [=](Values v) {
                           return reset_after(*dma, dma->space().unmap(Iova(v[0]), ByteCount(v[1]),
                                                                       Direction::bidirectional));
                       },
                   .state = state};
    };
    return {unmap(dma->large, many), unmap(dma->small, 100)};
}

std::vector<Row> syncs(const dma::Options& options) {
    const auto dma = std::make_shared<Dma>(options);
    const auto state = [=] { return dma->state(); };
    const bool knows_bytes = options.level == Level::exact;
    std::vector<Row> rows;
    for (const bool is_small : {false, true}) {
        const std::vector<Argument> sync = {
            {.name = "iova", .good = is_small ? dma->small : dma->large},
            {.name = "offset", .good = 16},
            {.name = "size", .good = is_small ? 32U : buffer_page}};
        const std::vector<Argument> range = {sync[0], sync[2]};
        rows.push_back({.name = "sync_for_device",
                        .arguments = sync,
                        .call =
                            [=](Values v) {
                                return outcome(dma->space().sync_for_device(
                                    Iova(v[0]), ByteCount(v[1]), ByteCount(v[2])));
                            },
                        .state = state});
        rows.push_back({.name = "sync_for_cpu",
                        .arguments = sync,
                        .call =
                            [=](Values v) {
                                return outcome(dma->space().sync_for_cpu(
                                    Iova(v[0]), ByteCount(v[1]), ByteCount(v[2])));
                            },
                        .state = state});
        rows.push_back({.name = "poison",
                        .arguments = range,
                        .call =
                            [=](Values v) {
                                const auto done = dma->space().poison(Iova(v[0]), ByteCount(v[1]));
                                if (done) {
                                    EXPECT_TRUE(dma->space().unpoison(Iova(v[0]), ByteCount(v[1])));
                                }
                                return outcome(done);
                            },
                        .state = state,
                        .good_succeeds = knows_bytes});
        rows.push_back({.name = "unpoison",
                        .arguments = range,
                        .call =
                            [=](Values v) {
                                return outcome(dma->space().unpoison(Iova(v[0]), ByteCount(v[1])));
                            },
                        .state = state,
                        .good_succeeds = knows_bytes});
        rows.push_back(
            {.name = "bytes_inside", .arguments = range, .call = [=](Values v) -> Outcome {
                 const ByteCount inside = dma->space().bytes_inside(Iova(v[0]), ByteCount(v[1]));
                 EXPECT_LE(inside.value(), v[1]);
                 return returned;
             }});
        rows.push_back(
            {.name = "access",
             .arguments = range,
             .call = [=](Values v) -> Outcome {
                 const auto read = dma->system().lane.template access<fault::Access::read>(
                     Iova(v[0]), ByteCount(v[1]), [](std::byte*, std::size_t, std::size_t) {});
                 EXPECT_LE(read.done.value(), v[1]);
                 return returned;
             },
             .state = state});
    }
    return rows;
}

std::vector<Row> faults(const dma::Options& options) {
    const auto dma = std::make_shared<Dma>(options);
    const auto state = [=] { return dma->state(); };
    return {{.name = "fault",
             .arguments = {{.name = "start", .good = dma->large},
                           {.name = "size", .good = 64},
                           {.name = "precision", .good = 1, .bits = 2},
                           {.name = "reason", .good = 1, .bits = 3}},
             .call =
                 [=](Values v) {
                     const auto where = IovaRange::make(Iova(v[0]), ByteCount(v[1]));
                     if (!where)
                         return outcome(where);
                     (void)dma->space().fault({.source = nic,
                                               .access = fault::Access::write,
                                               .precision = static_cast<fault::Precision>(v[2]),
                                               .reason = static_cast<fault::Reason>(v[3]),
                                               .where = *where});
                     return Outcome();
                 },
             .state = state}};
}

/// Creates a space and uses it: a config that creation accepts must work.
Outcome create_space(const dma::SpaceConfig& config) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    const auto space = SoftSpace::create(domain, config);
    if (!space)
        return space.error();
    for (int round = 0; round != 3; ++round) {
        const Memory memory = memory_of(100, 0x40);
        const auto iova = (*space)->map(memory, Direction::bidirectional, "a");
        if (!iova)
            return returned; // the guards leave no room
        EXPECT_LE(iova->value(), config.dma_mask.value());
        EXPECT_TRUE((*space)->unmap(*iova, memory.size(), Direction::bidirectional));
    }
    return returned;
}

std::vector<Row> dma_creations() {
    const auto capture = [](std::span<std::uintptr_t> frames) -> std::size_t {
        frames[0] = 7;
        return 1;
    };
    return {
        {.name = "create",
         .arguments = {{.name = "dma_mask", .good = 0xffff'ffff},
                       {.name = "guard", .good = 4096, .named = false}, // in pages
                       {.name = "guard_before", .good = 0, .named = false},
                       {.name = "quarantine", .good = 0},
                       {.name = "history", .good = 16, .bits = 32},
                       {.name = "stacks", .good = 1, .bits = 32},
                       {.name = "level", .good = 1, .bits = 2, .named = false}},
         .call =
             [=](Values v) {
                 dma::SpaceConfig config;
                 config.dma_mask = Iova(v[0]);
                 config.options.guard = ByteCount(v[1]);
                 config.options.guard_before = ByteCount(v[2]);
                 config.options.quarantine = ByteCount(v[3]);
                 config.options.history = static_cast<std::uint32_t>(v[4]);
                 config.options.stacks = static_cast<std::uint32_t>(v[5]);
                 config.options.level = static_cast<Level>(std::min<std::uint64_t>(v[6], 2));
                 config.capture = capture;
                 config.pages = dma::own_pages();
                 return create_space(config);
             }},
    };
}

/// MOAT_OPTIONS: every number of every option, with every unit.
std::vector<Row> dma_texts() {
    std::vector<Row> rows;
    for (const char* name : {"guard", "guard_before", "quarantine", "stacks", "history", "help"})
        for (const char* unit : {"", "k", "m", "g"})
            rows.push_back({.name = std::string(name) + unit,
                            .arguments = {{.name = "value", .good = 1}},
                            .call = [=](Values v) -> Outcome {
                                const std::string number = std::to_string(v[0]) + unit;
                                const std::string text = std::string(name) + "=" + number;
                                const auto parsed = dma::parse_options(text);
                                EXPECT_TRUE(parsed ||
                                            parsed.error().find(number) != std::string::npos);
                                return returned;
                            }});
    return rows;
}

class DmaContracts : public ::testing::TestWithParam<Level> {};

TEST_P(DmaContracts, map_takes_any_number) {
    expect_contracts([] { return dma_maps(options_of(GetParam())); });
    expect_contracts([] { return special_maps(options_of(GetParam())); });
}

TEST_P(DmaContracts, unmap_takes_any_number) {
    expect_contracts([] { return unmaps(options_of(GetParam())); });
}

TEST_P(DmaContracts, deferred_unmap_takes_any_number) {
    expect_contracts([] {
        dma::Options options = options_of(GetParam());
        options.unmapping = dma::Unmapping::deferred;
        return unmaps(options);
    });
}

TEST_P(DmaContracts, sync_and_poison_take_any_number) {
    expect_contracts([] { return syncs(options_of(GetParam())); });
    expect_contracts([] { return faults(options_of(GetParam())); });
}

INSTANTIATE_TEST_SUITE_P(Level, DmaContracts,
                         ::testing::Values(Level::guard, Level::track, Level::exact));

TEST(DmaContracts, spaces_take_any_option) {
    expect_contracts(dma_creations);
}

TEST(DmaContracts, texts_of_options_take_any_number) {
    expect_contracts(dma_texts);
}

} // namespace
} // namespace moat::tests
