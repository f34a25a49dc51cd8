// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mapping, translating and walking, for every format: the largest leaves that fit, and clear errors
// that change nothing.
#include "engine.hpp"

#include <gtest/gtest.h>

namespace {

using namespace moat;
using namespace moat::tests;

class Mapping : public ::testing::TestWithParam<FormatUnderTest> {
  protected:
    const FormatFacts& facts = GetParam().facts;
    const std::uint64_t page = facts.page();
    const std::uint64_t block = facts.block();
    std::unique_ptr<Engine> engine = GetParam().engine();

    void start_over() { engine = GetParam().engine(); }
};

MOAT_FOR_EVERY_FORMAT(Mapping);

TEST_P(Mapping, every_leaf_size_is_used_where_it_fits_exactly) {
    for (const unsigned lg2 : facts.leaf_sizes_lg2) {
        start_over();
        const std::uint64_t size = bit(lg2);
        const bool fits_twice = lg2 + 1 < facts.input_bits - (facts.sign_extended ? 1 : 0);
        const std::uint64_t start = fits_twice ? size : 0;
        ASSERT_TRUE(engine->map(start, size, 0)) << lg2;
        EXPECT_EQ(engine->leaf_size(start), size);
        EXPECT_EQ(engine->leaf_size(start + size - 1), size);
        EXPECT_EQ(engine->translate(start + size / 2)->physical, size / 2);
        EXPECT_EQ(engine->leaf_size(start - 1), 0U);
        EXPECT_EQ(engine->leaf_size(start + size), 0U);
        EXPECT_EQ(engine->mappings().size(), 1U);
    }
}

TEST_P(Mapping, each_leaf_is_the_largest_that_fits) {
    for (const std::uint64_t shift : {std::uint64_t{0}, page, block / 2}) {
        start_over();
        const std::uint64_t start = 7 * block + 3 * page;
        const std::uint64_t size = 3 * block + page;
        const std::uint64_t physical = start + shift;
        ASSERT_TRUE(engine->map(start, size, physical));
        for (std::uint64_t at = start; at != start + size;) {
            std::uint64_t expected = 0;
            for (const unsigned lg2 : facts.leaf_sizes_lg2)
                if (is_aligned(at | (physical + (at - start)), lg2) &&
                    bit(lg2) <= start + size - at)
                    expected = bit(lg2);
            ASSERT_EQ(engine->leaf_size(at), expected)
                << hexadecimal(at) << " shifted by " << hexadecimal(shift);
            at += expected;
        }
    }
}

TEST_P(Mapping, pages_of_a_list_go_wherever_they_are) {
    // Two existing tables, each with its last or first page mapped.
    ASSERT_TRUE(engine->map(block, page, 0));
    ASSERT_TRUE(engine->map(3 * block - page, page, 0));
    std::vector<std::uint64_t> memory;
    for (std::uint64_t i = 0; i != 6; ++i)
        memory.push_back((i * 7 % 6 + 1) * 4 * page);
    const std::uint64_t start = 2 * block - 3 * page;
    ASSERT_EQ(engine->map_pages(start, memory), memory.size());
    for (std::uint64_t i = 0; i != 6; ++i) {
        EXPECT_EQ(engine->translate(start + i * page + 1)->physical, memory[i] + 1);
        EXPECT_EQ(engine->leaf_size(start + i * page), page);
    }
    EXPECT_EQ(engine->leaf_size(start - page), 0U);
    EXPECT_EQ(engine->leaf_size(start + 6 * page), 0U);
}

TEST_P(Mapping, pages_of_a_list_stop_at_what_is_not_simple) {
    ASSERT_TRUE(engine->map(block, page, 0));
    const std::vector<std::uint64_t> memory(6, 8 * page);
    EXPECT_EQ(engine->map_pages(2 * block - 3 * page, memory), 3U) << "then a table is missing";
    EXPECT_EQ(engine->map_pages(2 * block - 6 * page, memory), 0U) << "some are mapped";
    EXPECT_EQ(engine->leaf_size(2 * block - 6 * page), 0U);
    EXPECT_EQ(engine->map_pages(block + page, {page / 2}), 0U) << "no page";
    EXPECT_EQ(engine->map_pages(block + page, {1ULL << 63}), 0U) << "no such memory";
    EXPECT_EQ(engine->map_pages(block + 1, memory), 0U);
    EXPECT_EQ(engine->map_pages(block + page, {}), 0U);
    EXPECT_EQ(engine->leaf_size(block + page), 0U);
}

TEST_P(Mapping, a_limit_on_the_leaf_size_is_kept) {
    const std::uint64_t size = 2 * block;
    for (const unsigned limit : facts.leaf_sizes_lg2) {
        if (bit(limit) > size)
            break;
        start_over();
        ASSERT_TRUE(engine->map(size, size, size, read_write, {.largest_leaf_lg2 = limit}));
        EXPECT_EQ(engine->leaf_size(size), bit(limit));
        EXPECT_EQ(engine->mappings().size(), 1U);
    }
}

TEST_P(Mapping, the_edges_of_the_space_can_be_mapped) {
    const unsigned bits = facts.input_bits;
    std::vector<std::uint64_t> edges = {0, low_bits(bits) & ~(page - 1)};
    if (facts.sign_extended)
        edges = {0, bit(bits - 1) - page, ~low_bits(bits - 1), ~std::uint64_t{0} - page + 1};
    for (const std::uint64_t edge : edges) {
        ASSERT_TRUE(engine->map(edge, page, 5 * page));
        EXPECT_EQ(engine->translate(edge + 1)->physical, 5 * page + 1);
    }
    EXPECT_EQ(engine->mappings().size(), edges.size());
    for (const std::uint64_t edge : edges)
        EXPECT_EQ(engine->unmap(edge, page)->leaves, 1U);
    EXPECT_TRUE(engine->mappings().empty());
}

TEST_P(Mapping, an_address_outside_of_the_space_translates_to_nothing) {
    engine = GetParam().make(facts.fewest_levels, {});
    const bool grows = facts.fewest_levels != facts.most_levels;
    const unsigned bits = grows ? facts.entry_lg2[facts.fewest_levels] : facts.input_bits;
    ASSERT_TRUE(engine->map(0, page, 0));
    EXPECT_FALSE(engine->translate(bit(bits)));
    EXPECT_FALSE(engine->translate(~std::uint64_t{0}));
}

TEST_P(Mapping, input_that_is_wrong_is_refused_by_name_and_changes_nothing) {
    const std::uint64_t top =
        low_bits(facts.sign_extended ? facts.input_bits - 1 : facts.input_bits);
    ASSERT_TRUE(engine->map(0, page, page));
    const auto before = engine->mappings();
    const auto code = [&](std::uint64_t start, std::uint64_t size, std::uint64_t physical,
                          Attributes attributes = read_write) {
        const auto done = engine->map(start, size, physical, attributes);
        EXPECT_FALSE(done);
        return done ? ErrorCode::io : done.error().code();
    };
    const std::uint64_t physical_end = bit(facts.output_bits);
    EXPECT_EQ(code(page, 0, 0), ErrorCode::empty);
    EXPECT_EQ(code(page + 1, page, 0), ErrorCode::unaligned);
    EXPECT_EQ(code(page, page + 1, 0), ErrorCode::unaligned);
    EXPECT_EQ(code(page, page, 8), ErrorCode::unaligned);
    EXPECT_EQ(code(0, page, 0), ErrorCode::overlap) << "address 0 is an address";
    EXPECT_EQ(code(0, 2 * page, 0), ErrorCode::overlap);
    EXPECT_EQ(code(page, page, physical_end), ErrorCode::out_of_range);
    EXPECT_EQ(code(page, 2 * page, physical_end - page), ErrorCode::out_of_range);
    EXPECT_EQ(code(page, page, ~std::uint64_t{0} - page + 1), ErrorCode::out_of_range);
    EXPECT_EQ(code(page, page, 0, Attributes::none), ErrorCode::unsupported);
    EXPECT_EQ(code(top - page + 1, ~std::uint64_t{0} - page + 1, 0), ErrorCode::overflow);
    if (top != ~std::uint64_t{0}) {
        EXPECT_EQ(code(top - page + 1, 2 * page, 0), ErrorCode::out_of_range);
        EXPECT_EQ(code(top + 1, page, 0), ErrorCode::out_of_range);
    }
    EXPECT_EQ(engine->mappings(), before);
    const auto overlap = engine->map(0, 2 * page, 0);
    ASSERT_NE(overlap.error().find("mapped_at"), nullptr);
    EXPECT_EQ(*overlap.error().find("mapped_at"), 0U);
    EXPECT_EQ(*overlap.error().find("size"), 2 * page);
}

TEST_P(Mapping, an_overlap_far_inside_is_found_and_nothing_is_mapped_before_it) {
    const std::uint64_t lone = 5 * block + 3 * page;
    ASSERT_TRUE(engine->map(lone, page, page));
    const auto before = engine->mappings();
    const std::uint64_t tables = engine->tables_in_use();
    const auto done = engine->map(page, 6 * block, 0);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code(), ErrorCode::overlap);
    EXPECT_LE(*done.error().find("mapped_at"), lone);
    EXPECT_GT(*done.error().find("mapped_at") + block, lone);
    EXPECT_EQ(engine->mappings(), before);
    EXPECT_EQ(engine->tables_in_use(), tables);
}

TEST_P(Mapping, an_overlap_in_the_second_table_leaves_the_first_alone) {
    const std::uint64_t taken = block + 2 * page;
    ASSERT_TRUE(engine->map(block - page, page, page)); // two tables that exist
    ASSERT_TRUE(engine->unmap(block - page, page, {.tables = CoveredTables::keep}));
    ASSERT_TRUE(engine->map(taken, page, page));
    const auto before = engine->mappings();
    const auto done = engine->map(block - 3 * page, 8 * page, page);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code(), ErrorCode::overlap);
    EXPECT_EQ(*done.error().find("mapped_at"), taken);
    EXPECT_EQ(engine->mappings(), before);
    ASSERT_TRUE(engine->unmap(taken, page));
    ASSERT_TRUE(engine->map(block - 3 * page, 8 * page, page));
    EXPECT_EQ(engine->mappings().size(), 1U);
    EXPECT_EQ(engine->translate(taken)->physical, 6 * page);
}

TEST_P(Mapping, a_ragged_range_gets_pages_leaves_and_pages) {
    const std::uint64_t start = block - page;
    const std::uint64_t size = 3 * block + 2 * page;
    ASSERT_TRUE(engine->map(block, page, page)); // an empty table in the way of the first leaf
    ASSERT_TRUE(engine->unmap(block, page, {.tables = CoveredTables::keep}));
    ASSERT_TRUE(engine->map(start, size, start));
    EXPECT_EQ(engine->leaf_size(start), page);
    EXPECT_GE(engine->leaf_size(block), facts.has_leaf(block) ? block : page);
    EXPECT_GE(engine->leaf_size(3 * block), facts.has_leaf(block) ? block : page);
    EXPECT_EQ(engine->leaf_size(4 * block), page);
    EXPECT_EQ(engine->mappings().size(), 1U);
    const auto done = engine->unmap(start, size);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->bytes, size);
    EXPECT_TRUE(engine->mappings().empty());
}

TEST_P(Mapping, empty_tables_give_way_to_a_larger_leaf) {
    ASSERT_TRUE(engine->map(block, page, page));
    ASSERT_TRUE(engine->unmap(block, page, {.tables = CoveredTables::keep}));
    const std::uint64_t tables = engine->tables_in_use();
    const std::uint64_t invalidations = engine->invalidations;
    ASSERT_TRUE(engine->map(block, block, block));
    EXPECT_EQ(engine->leaf_size(block), block);
    EXPECT_EQ(engine->tables_in_use(), tables - 1);
    EXPECT_EQ(engine->invalidations, invalidations + 1) << "the table's entry may be cached";
    EXPECT_EQ(engine->mappings().size(), 1U);
}

TEST_P(Mapping, attributes_come_back_as_they_were_given) {
    std::uint64_t at = 0;
    for (std::uint32_t bits = 0; bits != 1U << 8; ++bits) {
        const auto attributes = static_cast<Attributes>(bits);
        const auto done = engine->map(at, page, at, attributes);
        ASSERT_EQ(done.has_value(), facts.representable(attributes)) << bits;
        if (!done)
            continue;
        EXPECT_EQ(engine->translate(at)->attributes - accessed_and_dirty, attributes) << bits;
        at += page;
    }
    EXPECT_GT(at, 0U);
}

TEST_P(Mapping, a_walk_visits_holes_and_leaves_once_each_in_order) {
    ASSERT_TRUE(engine->map(block - page, block + 2 * page, block - page));
    ASSERT_TRUE(engine->map(4 * block, page, 0, Attributes::read));
    const std::uint64_t start = block - page - 100;
    const std::uint64_t end = start + 4 * block;
    std::vector<Visit> visits;
    ASSERT_EQ(engine->walk(start, end - start, visits), WalkEnd::complete);
    std::uint64_t at = start;
    for (const auto& [what, visit_start, size] : visits) {
        if (what == 'T')
            continue;
        ASSERT_EQ(visit_start, at) << "no gap and no second visit";
        ASSERT_EQ(what == 'L', engine->translate(at).has_value());
        at = visit_start + size;
    }
    EXPECT_EQ(at, end);
}

TEST_P(Mapping, a_walk_stops_and_skips_as_its_visitor_says) {
    ASSERT_TRUE(engine->map(page, 4 * page, 0));
    std::vector<Visit> visits;
    ASSERT_EQ(engine->walk(0, block, visits,
                           [](const Visit& visit) {
                               return visit.what == 'L' ? WalkControl::stop : WalkControl::next;
                           }),
              WalkEnd::stopped);
    EXPECT_EQ(visits.back().what, 'L');
    EXPECT_EQ(visits.back().start, page);
    visits.clear();
    ASSERT_EQ(engine->walk(0, block, visits, [](const Visit&) { return WalkControl::skip; }),
              WalkEnd::complete);
    ASSERT_EQ(visits.size(), 1U) << "the first table was skipped with all that is below";
    EXPECT_EQ(visits[0].what, 'T');
    EXPECT_EQ(engine->walk(0, 0, visits).error().code(), ErrorCode::empty);
}

TEST_P(Mapping, a_walk_of_a_part_of_a_leaf_visits_the_whole_leaf_once) {
    for (const unsigned lg2 : facts.leaf_sizes_lg2) {
        start_over();
        const std::uint64_t size = bit(lg2);
        ASSERT_TRUE(engine->map(0, size, 0));
        std::vector<Visit> visits;
        ASSERT_TRUE(engine->walk(size / 2, size / 4, visits));
        ASSERT_FALSE(visits.empty());
        EXPECT_EQ(visits.back(), (Visit{'L', 0, size}));
        visits.pop_back();
        for (const Visit& visit : visits)
            EXPECT_EQ(visit.what, 'T') << lg2;
    }
}

} // namespace
