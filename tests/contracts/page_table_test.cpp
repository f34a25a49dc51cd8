// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// page_table, in every format: Edit, Reader, TablePool and PageTable::create. Programmer's errors
// by contract, so not rows: the pool's buffers (their alignment is the embedder's layout, fixed
// before any table exists), and `release`, `words` and `header` of a table that the pool never
// allocated: only the engine calls them, on the path of every walk.
#include "moat/page_table/edit.hpp"
#include "moat/page_table/formats/amd_v1.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/page_table/owned_tables.hpp"
#include "moat/sync/real.hpp"

#include "contract.hpp"
#include "page_table/engine.hpp"

#include <gtest/gtest.h>
#include <sstream>

namespace moat::tests {
namespace {

/// An engine with some mappings, recreated after each call that succeeded.
class Tables {
  public:
    explicit Tables(const FormatUnderTest& format, MapOptions options = {})
        : format_(format), options_(options) {
        reset();
    }

    [[nodiscard]] std::uint64_t base() const { return 2 * format_.facts.block(); }

    [[nodiscard]] std::uint64_t page() const { return format_.facts.page(); }

    [[nodiscard]] Engine& engine() const { return *engine_; }

    void reset() {
        engine_ = format_.engine();
        // The largest leaf that fits, and pages that begin directly behind it.
        const std::uint64_t block = format_.facts.block();
        EXPECT_TRUE(engine_->map(base(), block, base(), read_write, options_));
        EXPECT_TRUE(engine_->map(base() + block, 8 * page(), 0, read_write));
    }

    [[nodiscard]] std::string state() const {
        std::ostringstream text;
        for (const auto& [start, piece] : engine_->mappings())
            text << hexadecimal(start) << ' ' << piece << "; ";
        text << engine_->tables_in_use() << " tables";
        return text.str();
    }

  private:
    const FormatUnderTest& format_;
    const MapOptions options_;
    std::unique_ptr<Engine> engine_;
};

using TableCall = std::function<Outcome(Tables&, Values)>;

/// A function of a range; `more` are the numbers that follow start and size.
Row range_row(const std::shared_ptr<Tables>& tables, const char* name, std::uint64_t good_start,
              std::uint64_t good_size, std::vector<Argument> more, TableCall call) {
    std::vector<Argument> arguments = {{.name = "start", .good = good_start},
                                       {.name = "size", .good = good_size}};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return {.name = name,
            .arguments = arguments,
            .call = [=](Values v) { return call(*tables, v); },
            .state = [=] { return tables->state(); }};
}

/// The subset of accessed and dirty that the format keeps.
Attributes flags_of(const FormatUnderTest& format) {
    const FormatCapabilities& can = format.facts.capabilities;
    Attributes flags = Attributes::none;
    if (can.accessed != FlagUpdate::none)
        flags |= Attributes::accessed;
    if (can.dirty != FlagUpdate::none)
        flags |= Attributes::dirty;
    return flags;
}

std::vector<Row> edits(const FormatUnderTest& format) {
    const auto tables = std::make_shared<Tables>(format);
    const std::uint64_t block = format.facts.block();
    const std::uint64_t page = format.facts.page();
    const std::uint64_t base = tables->base();
    const Argument attributes = {.name = "attributes", .good = 3, .bits = 32};
    return {
        range_row(tables, "map", base + 2 * block, 4 * page,
                  {{.name = "physical", .good = 0x100000},
                   attributes,
                   {.name = "largest_leaf_lg2", .good = 63, .bits = 32}},
                  [](Tables& t, Values v) {
                      return reset_after(
                          t, t.engine().map(v[0], v[1], v[2], static_cast<Attributes>(v[3]),
                                            {.largest_leaf_lg2 = static_cast<unsigned>(v[4])}));
                  }),
        range_row(tables, "unmap", base, block, {},
                  [](Tables& t, Values v) { return reset_after(t, t.engine().unmap(v[0], v[1])); }),
        range_row(tables, "unmap, splitting", base, block, {},
                  [](Tables& t, Values v) {
                      return reset_after(t, t.engine().unmap(v[0], v[1],
                                                             {.partial = PartialLeaf::split,
                                                              .breaking = Break::allowed}));
                  }),
        range_row(tables, "protect", base, block, {attributes},
                  [](Tables& t, Values v) {
                      return reset_after(
                          t, t.engine().protect(v[0], v[1], static_cast<Attributes>(v[2])));
                  }),
        range_row(tables, "split", base + block, 4 * page, {},
                  [](Tables& t, Values v) { return reset_after(t, t.engine().split(v[0], v[1])); }),
        range_row(std::make_shared<Tables>(format, MapOptions{.largest_leaf_lg2 = 0}), "fold", base,
                  block, {},
                  [](Tables& t, Values v) { return reset_after(t, t.engine().fold(v[0], v[1])); }),
        range_row(tables, "clear_accessed_dirty", base, block,
                  {{.name = "attributes",
                    .good = static_cast<std::uint32_t>(flags_of(format)),
                    .bits = 32}},
                  [](Tables& t, Values v) {
                      return reset_after(
                          t, t.engine().clear_flags(v[0], v[1], static_cast<Attributes>(v[2])));
                  }),
    };
}

std::vector<Row> reads(const FormatUnderTest& format) {
    const auto tables = std::make_shared<Tables>(format);
    const std::uint64_t base = tables->base();
    return {
        range_row(tables, "walk", base, format.facts.block(), {},
                  [](Tables& t, Values v) {
                      std::vector<Visit> visits;
                      const auto end = t.engine().walk(v[0], v[1], visits);
                      EXPECT_TRUE(end || visits.empty());
                      return outcome(end);
                  }),
        range_row(tables, "translate", base, 1, {},
                  [](Tables& t, Values v) {
                      (void)t.engine().translate(v[0]);
                      return returned;
                  }),
    };
}

class PageTableContracts : public ::testing::TestWithParam<FormatUnderTest> {};

TEST_P(PageTableContracts, edits_take_any_number) {
    expect_contracts([] { return edits(GetParam()); }, GetParam().facts.page());
}

TEST_P(PageTableContracts, readers_take_any_number) {
    expect_contracts([] { return reads(GetParam()); }, GetParam().facts.page());
}

MOAT_FOR_EVERY_FORMAT(PageTableContracts);

/// Of one format, without an Engine around it.
template <class F>
struct Plain {
    using Types = Tree<F, RealSync, TablePool<RealSync>>;
    std::unique_ptr<OwnedTables<RealSync>> tables = *OwnedTables<RealSync>::create(64);
    PageTable<Types> table = *PageTable<Types>::create(pool());

    [[nodiscard]] TablePool<RealSync>& pool() const { return tables->pool(); }

    [[nodiscard]] std::string state() const {
        RealSync::barrier(); // removed tables are free again
        return std::to_string(pool().units_in_use()) + " tables";
    }
};

template <class F>
Row create_row(const char* name) {
    const auto plain = std::make_shared<Plain<F>>();
    return {.name = name,
            .arguments = {{.name = "levels", .good = F::most_levels, .bits = 32}},
            .call =
                [=](Values v) {
                    return outcome(PageTable<typename Plain<F>::Types>::create(
                        plain->pool(), static_cast<unsigned>(v[0])));
                },
            .state = [=] { return plain->state(); }};
}

TEST(PageTableContracts, creation_takes_any_number) {
    expect_contracts([] {
        return std::vector<Row>{create_row<formats::X86_64<4>>("create, x86-64"),
                                create_row<formats::AmdV1<>>("create, AMD")};
    });
}

TEST(PageTableContracts, map_pages_takes_any_number) {
    expect_contracts([] {
        const auto plain = std::make_shared<Plain<formats::VtdSecondStage<4>>>();
        return std::vector<Row>{
            {.name = "map_pages",
             .arguments = {{.name = "start", .good = 0x200000},
                           {.name = "count", .good = 4},
                           {.name = "physical", .good = 0x100000},
                           {.name = "attributes", .good = 3, .bits = 32}},
             .call = [=](Values v) -> Outcome {
                 auto invalidate = [](const InvalidationRequest<Iova>&) {};
                 auto edit = plain->table.edit(invalidate);
                 EXPECT_TRUE(
                     edit.map(Iova(0x200000), ByteCount(0x1000), PhysicalAddress(0), read_write));
                 EXPECT_TRUE(edit.unmap(Iova(0x200000), ByteCount(0x1000)));
                 const std::uint64_t done = edit.map_pages(
                     Iova(v[0]), v[1],
                     [&](std::uint64_t i) { return PhysicalAddress(v[2] + (i << 12)); },
                     static_cast<Attributes>(v[3]));
                 EXPECT_LE(done, v[1]);
                 if (done != 0) {
                     EXPECT_TRUE(edit.unmap(Iova(v[0]), ByteCount(done << 12)));
                 }
                 EXPECT_TRUE(edit.unmap(Iova(0), ByteCount(1ULL << 40)));
                 edit.finish();
                 return returned;
             },
             .state = [=] { return plain->state(); }}};
    });
}

TEST(PageTableContracts, table_pools_take_any_number) {
    expect_contracts([] {
        const auto plain = std::make_shared<Plain<formats::VtdSecondStage<4>>>();
        return std::vector<Row>{
            {.name = "allocate",
             .arguments = {{.name = "bytes_lg2", .good = 12, .bits = 32, .named = false}},
             .call =
                 [=](Values v) {
                     const auto lg2 = static_cast<unsigned>(v[0]);
                     const auto table = plain->pool().allocate(lg2);
                     if (table)
                         plain->pool().release(*table, lg2);
                     return outcome(table);
                 },
             .state = [=] { return plain->state(); }}};
    });
}

} // namespace
} // namespace moat::tests
