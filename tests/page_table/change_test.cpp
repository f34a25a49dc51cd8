// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Unmapping, protecting, splitting, folding and growing, for every format: each reports its
// changes, a failed call changes nothing, and hardware's flags are not lost.
#include "engine.hpp"

#include <gtest/gtest.h>

namespace {

using namespace moat;
using namespace moat::tests;

constexpr UnmapOptions split_with_break = {.partial = PartialLeaf::split,
                                           .breaking = Break::allowed};

class Change : public ::testing::TestWithParam<FormatUnderTest> {
  protected:
    const FormatFacts& facts = GetParam().facts;
    const std::uint64_t page = facts.page();
    const std::uint64_t block = facts.block();
    std::unique_ptr<Engine> engine = GetParam().engine();

    void start_over() { engine = GetParam().engine(); }

    /// Leaves of more than one page, up to a size that a test can split page by page.
    [[nodiscard]] std::vector<std::uint64_t> divisible_leaves() const {
        std::vector<std::uint64_t> sizes;
        for (const unsigned lg2 : facts.leaf_sizes_lg2)
            if (lg2 > facts.granule_lg2 && lg2 <= facts.entry_lg2[facts.most_levels > 2 ? 2 : 1])
                sizes.push_back(bit(lg2));
        return sizes;
    }

    [[nodiscard]] bool keeps_dirty() const { return facts.capabilities.dirty != FlagUpdate::none; }

    void expect_no_dirty() {
        ASSERT_TRUE(engine->map(0, page, 0));
        EXPECT_EQ(engine->clear_flags(0, page, Attributes::dirty).error().code(),
                  ErrorCode::unsupported);
        EXPECT_EQ(engine->unmap(0, page, {.flags = FinalFlags::collect})->flags & Attributes::dirty,
                  Attributes::none);
    }
};

MOAT_FOR_EVERY_FORMAT(Change);

TEST_P(Change, unmap_takes_what_is_there_and_counts_it) {
    ASSERT_TRUE(engine->map(3 * page, 2 * page, 0));
    ASSERT_TRUE(engine->map(9 * page, page, 0));
    EXPECT_TRUE(engine->translate(4 * page));
    const auto done = engine->unmap(0, 16 * page);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->bytes, 3 * page);
    EXPECT_EQ(done->split, 0U);
    EXPECT_TRUE(engine->mappings().empty());
    const auto nothing = engine->unmap(0, 16 * page);
    ASSERT_TRUE(nothing);
    EXPECT_EQ(nothing->leaves, 0U);
    EXPECT_EQ(nothing->bytes, 0U);
}

TEST_P(Change, a_run_across_two_tables_is_unmapped_holes_included) {
    for (const FinalFlags flags : {FinalFlags::ignore, FinalFlags::collect}) {
        start_over();
        // An odd page to even memory: no format makes a group of these.
        ASSERT_TRUE(engine->map(block - 5 * page, 10 * page, 2 * page));
        ASSERT_TRUE(engine->unmap(block - page, 2 * page));
        for (std::uint64_t at = block - 5 * page; at != block + 5 * page; at += page)
            (void)engine->translate(at); // cached
        const std::uint64_t invalidations = engine->invalidations;
        const auto done = engine->unmap(block - 4 * page, 8 * page, {.flags = flags});
        ASSERT_TRUE(done);
        EXPECT_EQ(done->bytes, 6 * page);
        EXPECT_EQ(done->leaves, 6U);
        EXPECT_TRUE(engine->translate(block - 5 * page));
        EXPECT_TRUE(engine->translate(block + 4 * page));
        EXPECT_EQ(engine->mappings().size(), 2U);
        // The two runs touch; exact flags are collected around the holes.
        EXPECT_EQ(engine->invalidations, invalidations + (flags == FinalFlags::ignore ? 1 : 2));
    }
}

TEST_P(Change, a_run_across_tables_may_be_as_long_as_a_table_and_longer) {
    for (const std::uint64_t size : {block - page, block, block + page, block + 2 * page}) {
        start_over();
        const std::uint64_t start = block - page;
        for (const bool built : {false, true}) {
            ASSERT_TRUE(engine->map(start, size, 4 * page)) << size << built; // not congruent
            for (std::uint64_t at = 0; at != size; at += page)
                ASSERT_EQ(engine->translate(start + at)->physical, 4 * page + at) << size << built;
            const auto done = engine->unmap(start, size, {.tables = CoveredTables::keep});
            ASSERT_TRUE(done) << size << built;
            EXPECT_EQ(done->bytes, size);
            EXPECT_TRUE(engine->mappings().empty());
        }
    }
}

TEST_P(Change, a_run_that_ends_inside_a_leaf_is_refused_before_its_first_page_goes) {
    if (!facts.has_leaf(block))
        GTEST_SKIP() << "SKIPPED: the format has no leaf of this size";
    ASSERT_TRUE(engine->map(block - 2 * page, 2 * page, page));
    ASSERT_TRUE(engine->map(block, block, 0));
    const auto before = engine->mappings();
    const auto done = engine->unmap(block - 2 * page, 3 * page);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code(), ErrorCode::refused);
    EXPECT_EQ(engine->mappings(), before);
}

TEST_P(Change, unmap_of_every_leaf_size_counts_one_leaf) {
    for (const unsigned lg2 : facts.leaf_sizes_lg2) {
        start_over();
        ASSERT_TRUE(engine->map(0, bit(lg2), 0));
        const auto done = engine->unmap(0, bit(lg2));
        ASSERT_TRUE(done);
        EXPECT_EQ(done->leaves, 1U) << lg2;
        EXPECT_EQ(done->bytes, bit(lg2));
        EXPECT_TRUE(engine->mappings().empty());
    }
}

TEST_P(Change, tables_covered_as_a_whole_go_and_others_stay) {
    ASSERT_TRUE(engine->map(block, block, page)); // not congruent: pages
    const std::uint64_t tables = engine->tables_in_use();
    ASSERT_EQ(engine->unmap(block, block - page)->bytes, block - page);
    EXPECT_EQ(engine->tables_in_use(), tables);
    ASSERT_EQ(engine->unmap(block, block)->bytes, page);
    EXPECT_EQ(engine->tables_in_use(), tables - 1);
    ASSERT_TRUE(engine->map(block, block, page));
    ASSERT_TRUE(engine->unmap(block, block, {.tables = CoveredTables::keep}));
    EXPECT_EQ(engine->tables_in_use(), tables);
    EXPECT_TRUE(engine->mappings().empty());
}

TEST_P(Change, a_partly_covered_leaf_is_refused_by_name_and_nothing_changes) {
    for (const std::uint64_t size : divisible_leaves()) {
        start_over();
        ASSERT_TRUE(engine->map(size, 2 * size, 0));
        const auto before = engine->mappings();
        const std::uint64_t tables = engine->tables_in_use();
        // Leaves across the start, across the end, across both, and beside a whole one.
        const std::pair<std::uint64_t, std::uint64_t> ranges[] = {{size + page, size - page},
                                                                  {size, size - page},
                                                                  {size + page, page},
                                                                  {size + page, 2 * size - page},
                                                                  {0, size + page}};
        for (const auto& [start, length] : ranges) {
            const std::uint64_t cut = engine->leaf_size(size);
            if (length == cut || is_aligned(start | length, alignment_lg2(cut)))
                continue;
            const auto done = engine->unmap(start, length);
            ASSERT_FALSE(done) << size << " " << start << " " << length;
            EXPECT_EQ(done.error().code(), ErrorCode::refused);
            ASSERT_NE(done.error().find("leaf"), nullptr);
            EXPECT_EQ(*done.error().find("leaf_size"), cut);
            EXPECT_EQ(engine->protect(start, length, Attributes::read).error().code(),
                      ErrorCode::refused);
        }
        EXPECT_EQ(engine->mappings(), before);
        EXPECT_EQ(engine->tables_in_use(), tables);
    }
}

TEST_P(Change, a_page_is_cut_out_of_every_leaf_and_the_rest_stays) {
    for (const std::uint64_t size : divisible_leaves()) {
        start_over();
        ASSERT_TRUE(engine->map(size, size, 0, Attributes::read));
        engine->translate(size);
        engine->translate(size + size / 2);
        engine->translate(size + size - 1);
        const std::uint64_t hole = size + size / 2;
        const auto done = engine->unmap(hole, page, split_with_break);
        ASSERT_TRUE(done) << to_string(done.error());
        EXPECT_EQ(done->bytes, page);
        EXPECT_GE(done->split, 1U);
        const Mappings expected = {
            {size, {hole - 1, 0, Attributes::read}},
            {hole + page, {2 * size - 1, hole + page - size, Attributes::read}}};
        auto left = expected;
        std::erase_if(left, [](const auto& piece) { return piece.first > piece.second.last; });
        EXPECT_EQ(engine->mappings(), left) << size;
    }
}

TEST_P(Change, without_leave_to_break_a_live_leaf_is_split_in_place_or_not_at_all) {
    for (const std::uint64_t size : divisible_leaves()) {
        start_over();
        ASSERT_TRUE(engine->map(0, size, 0));
        const auto before = engine->mappings();
        const std::uint64_t leaf = engine->leaf_size(0);
        engine->during_invalidation = [&](std::uint64_t start, std::uint64_t) {
            EXPECT_TRUE(engine->translate(start)) << "in place: never absent";
        };
        const auto done = engine->unmap(page, page, {.partial = PartialLeaf::split});
        engine->during_invalidation = {};
        if (done)
            continue;
        EXPECT_EQ(done.error().code(), ErrorCode::refused);
        EXPECT_NE(done.error().sentence().find("break-before-make"), std::string_view::npos);
        EXPECT_TRUE(facts.capabilities.level_change == LiveChange::break_before_make ||
                    facts.capabilities.group_change == LiveChange::break_before_make);
        EXPECT_EQ(engine->mappings(), before);
        EXPECT_EQ(engine->leaf_size(0), leaf);
    }
}

TEST_P(Change, a_split_breaks_before_it_makes_where_the_format_wants_that_and_nowhere_else) {
    for (const std::uint64_t size : divisible_leaves()) {
        start_over();
        ASSERT_TRUE(engine->map(0, size, 0));
        bool absent = false;
        engine->during_invalidation = [&](std::uint64_t start, std::uint64_t last) {
            absent = absent || (start == 0 && last == size - 1 && !engine->translate(0) &&
                                !engine->translate(size - 1));
        };
        ASSERT_TRUE(engine->split(0, page));
        engine->during_invalidation = {};
        EXPECT_EQ(absent, facts.capabilities.level_change == LiveChange::break_before_make) << size;
        EXPECT_EQ(engine->mappings(), (Mappings{{0, {size - 1, 0, read_write}}}));
    }
}

TEST_P(Change, protect_changes_what_it_covers_and_nothing_else) {
    const std::uint64_t size = 2 * block;
    ASSERT_TRUE(engine->map(size, size, 0));
    engine->translate(size);
    engine->translate(2 * size - 1);
    const auto done = engine->protect(size + page, page, Attributes::read,
                                      {.partial = PartialLeaf::split, .breaking = Break::allowed});
    ASSERT_TRUE(done) << to_string(done.error());
    EXPECT_EQ(done->bytes, page);
    EXPECT_EQ(done->leaves, 1U);
    EXPECT_EQ(engine->mappings(),
              (Mappings{{size, {size + page - 1, 0, read_write}},
                        {size + page, {size + 2 * page - 1, page, Attributes::read}},
                        {size + 2 * page, {2 * size - 1, 2 * page, read_write}}}));
    EXPECT_EQ(engine->protect(0, page, Attributes::read)->leaves, 0U) << "a hole is no error";
    EXPECT_EQ(engine->protect(size, page, Attributes::none).error().code(), ErrorCode::unsupported);
}

TEST_P(Change, protect_of_a_group_is_whole_or_refused) {
    for (const std::uint64_t size : divisible_leaves()) {
        start_over();
        ASSERT_TRUE(engine->map(0, size, 0));
        const auto done = engine->protect(0, size, Attributes::read);
        const auto broken =
            done ? done : engine->protect(0, size, Attributes::read, {.breaking = Break::allowed});
        ASSERT_TRUE(broken) << to_string(broken.error());
        EXPECT_EQ(broken->leaves, 1U);
        EXPECT_EQ(broken->bytes, size);
        EXPECT_EQ(engine->leaf_size(0), size) << "a leaf stays whole";
        EXPECT_EQ(engine->mappings(), (Mappings{{0, {size - 1, 0, Attributes::read}}}));
        if (!done) {
            EXPECT_EQ(facts.capabilities.group_change, LiveChange::break_before_make);
        }
    }
}

TEST_P(Change, split_then_fold_gives_the_leaf_back) {
    for (const std::uint64_t size : divisible_leaves()) {
        const bool whole_entry = std::find(facts.entry_lg2.begin(), facts.entry_lg2.end(),
                                           alignment_lg2(size)) != facts.entry_lg2.end();
        if (!whole_entry)
            continue; // folding makes no group
        start_over();
        ASSERT_TRUE(engine->map(size, size, size));
        const std::uint64_t tables = engine->tables_in_use();
        const std::uint64_t below = size >> (facts.granule_lg2 - 3);
        const auto split = engine->split(size, below);
        ASSERT_TRUE(split) << to_string(split.error());
        EXPECT_EQ(*split, 1U);
        EXPECT_EQ(engine->leaf_size(size), below);
        EXPECT_EQ(engine->mappings(), (Mappings{{size, {2 * size - 1, size, read_write}}}));
        if (facts.capabilities.level_change == LiveChange::break_before_make) {
            EXPECT_EQ(engine->fold(size, size, Break::forbidden).error().code(),
                      ErrorCode::refused);
        }
        const auto folded = engine->fold(size, size);
        ASSERT_TRUE(folded) << to_string(folded.error());
        EXPECT_EQ(engine->leaf_size(size), size);
        EXPECT_EQ(engine->tables_in_use(), tables);
        EXPECT_EQ(engine->mappings(), (Mappings{{size, {2 * size - 1, size, read_write}}}));
    }
}

TEST_P(Change, fold_refuses_what_is_not_one_piece) {
    const MapOptions pages = {.largest_leaf_lg2 = facts.granule_lg2};
    EXPECT_EQ(engine->fold(block, block).error().code(), ErrorCode::mismatch) << "no table";
    ASSERT_TRUE(engine->map(block, block - page, block, read_write, pages));
    EXPECT_EQ(engine->fold(block, block).error().code(), ErrorCode::mismatch) << "a hole";
    ASSERT_TRUE(engine->map(2 * block - page, page, 0));
    EXPECT_EQ(engine->fold(block, block).error().code(), ErrorCode::mismatch) << "elsewhere";
    ASSERT_TRUE(engine->unmap(2 * block - page, page));
    ASSERT_TRUE(engine->map(2 * block - page, page, 2 * block - page, Attributes::read));
    EXPECT_EQ(engine->fold(block, block).error().code(), ErrorCode::mismatch) << "attributes";
    ASSERT_TRUE(engine->protect(2 * block - page, page, read_write));
    EXPECT_TRUE(engine->fold(block, block));
    EXPECT_EQ(engine->fold(block, block).error().code(), ErrorCode::mismatch) << "folded already";
    EXPECT_EQ(engine->fold(block, 2 * block).error().code(), ErrorCode::unaligned);
    ASSERT_TRUE(engine->map(4 * block, block, page));
    EXPECT_EQ(engine->fold(4 * block, block).error().code(), ErrorCode::mismatch) << "misaligned";
}

TEST_P(Change, flags_of_hardware_are_read_and_cleared) {
    if (!keeps_dirty())
        return expect_no_dirty();
    for (const unsigned lg2 : facts.leaf_sizes_lg2) {
        start_over();
        const std::uint64_t size = bit(lg2);
        ASSERT_TRUE(engine->map(0, size, 0));
        ASSERT_TRUE(engine->clear_flags(0, page, accessed_and_dirty));
        EXPECT_TRUE(engine->clear_flags(0, page, accessed_and_dirty)->empty());
        engine->hardware_uses(size / 2, accessed_and_dirty); // in the middle of a group
        const auto dirty = engine->clear_flags(0, page, Attributes::dirty);
        ASSERT_TRUE(dirty);
        ASSERT_EQ(dirty->size(), 1U) << lg2;
        EXPECT_EQ((*dirty)[0].start, 0U);
        EXPECT_EQ((*dirty)[0].size, size) << "one flag for the whole leaf";
        EXPECT_TRUE(has((*dirty)[0].had, Attributes::dirty));
        const auto accessed = engine->clear_flags(0, page, accessed_and_dirty);
        ASSERT_EQ(accessed->size(), 1U);
        EXPECT_EQ((*accessed)[0].had, Attributes::accessed);
        EXPECT_EQ(engine->mappings(), (Mappings{{0, {size - 1, 0, read_write}}}));
    }
}

TEST_P(Change, flags_survive_protect_split_and_fold) {
    if (!keeps_dirty())
        return expect_no_dirty();
    for (const std::uint64_t size : divisible_leaves()) {
        start_over();
        ASSERT_TRUE(engine->map(0, size, 0));
        ASSERT_TRUE(engine->clear_flags(0, page, accessed_and_dirty));
        engine->hardware_uses(size / 2, accessed_and_dirty);
        ASSERT_TRUE(
            engine->protect(0, size, read_write | Attributes::read, {.breaking = Break::allowed}));
        ASSERT_TRUE(engine->split(0, page));
        const auto pages = engine->clear_flags(0, size, Attributes::dirty);
        ASSERT_TRUE(pages);
        std::uint64_t dirty_bytes = 0;
        for (const FlagReport& report : *pages)
            dirty_bytes += report.size;
        EXPECT_EQ(dirty_bytes, size) << "what was dirty as a whole is dirty in every part";
    }
}

TEST_P(Change, unmap_collects_the_flags_of_what_goes) {
    if (!keeps_dirty())
        return expect_no_dirty();
    for (const unsigned lg2 : facts.leaf_sizes_lg2) {
        start_over();
        const std::uint64_t size = bit(lg2);
        ASSERT_TRUE(engine->map(0, size, 0));
        ASSERT_TRUE(engine->clear_flags(0, page, accessed_and_dirty));
        engine->hardware_uses(size - 1, Attributes::accessed);
        const auto clean = engine->unmap(0, size, {.flags = FinalFlags::collect});
        ASSERT_TRUE(clean);
        EXPECT_EQ(clean->flags, Attributes::accessed);
        ASSERT_TRUE(engine->map(0, size, 0));
        ASSERT_TRUE(engine->clear_flags(0, page, accessed_and_dirty));
        engine->hardware_uses(size - 1, accessed_and_dirty);
        EXPECT_EQ(engine->unmap(0, size, {.flags = FinalFlags::collect})->flags,
                  accessed_and_dirty);
    }
}

TEST_P(Change, a_tree_that_can_grow_keeps_what_it_maps) {
    if (facts.fewest_levels == facts.most_levels) {
        EXPECT_EQ(engine->grow().error().code(), ErrorCode::unsupported);
        return;
    }
    engine = GetParam().make(facts.fewest_levels, {});
    ASSERT_TRUE(engine->map(page, 2 * page, 0));
    for (unsigned levels = facts.fewest_levels; levels != facts.most_levels; ++levels) {
        const std::uint64_t beyond = bit(facts.entry_lg2[levels]);
        const auto far = engine->map(beyond, page, 0);
        ASSERT_FALSE(far);
        EXPECT_EQ(far.error().code(), ErrorCode::out_of_range);
        EXPECT_EQ(*far.error().find("levels"), levels);
        ASSERT_TRUE(engine->grow());
        ASSERT_EQ(engine->levels(), levels + 1);
        ASSERT_TRUE(engine->map(beyond, page, page * levels));
        EXPECT_EQ(engine->translate(2 * page)->physical, page);
    }
    EXPECT_EQ(engine->grow().error().code(), ErrorCode::unsupported);
    EXPECT_EQ(engine->mappings().size(), 1U + facts.most_levels - facts.fewest_levels);
}

} // namespace
