// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The diagnosis of a record beside mappings: each kind, each precision, and the length of a search.
#include "moat/fault/diagnose.hpp"
#include "moat/fault/mapping.hpp"

#include "mappings.hpp"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <numeric>
#include <random>
#include <vector>

namespace moat::fault {

namespace {

/// Three buffers: `a` with guards of a page, `b` of 100 bytes, `c` directly behind `d`.
const std::array<Mapping, 4> buffers = {
    mapping(0x10000, 0x1000, "a", Allows::read_write, 0x1000),
    mapping(0x20000, 100, "b", Allows::read),
    mapping(0x30000, 0x1000, "c", Allows::write),
    mapping(0x31000, 0x1000, "d", Allows::write),
};

class Diagnose : public testing::Test {
  protected:
    Diagnosis operator()(const Record& record) {
        history.catch_up();
        return diagnose(SortedMappings(buffers), history, record);
    }

    History history{16};
};

#define EXPECT_BESIDE(diagnosis, expected_kind, expected_label, least_, most_)                     \
    EXPECT_EQ((diagnosis).kind, expected_kind);                                                    \
    ASSERT_TRUE((diagnosis).mapping);                                                              \
    EXPECT_EQ((diagnosis).mapping->label, expected_label);                                         \
    EXPECT_EQ((diagnosis).distance, (Distance{least_, most_}))

TEST_F(Diagnose, counts_bytes_past_the_end) {
    const Diagnosis found = (*this)(exact(0x11010, 8));
    EXPECT_BESIDE(found, Kind::out_of_bounds_right, "a", 0x11, 0x11);
    EXPECT_EQ(found.side, Side::right);
    EXPECT_EQ(found.bytes_outside, 8U);
    EXPECT_FALSE(found.left);
    EXPECT_EQ(found.right->label, "b");
}

TEST_F(Diagnose, counts_bytes_before_the_start) {
    const Diagnosis found = (*this)(exact(0xfff0, 4));
    EXPECT_BESIDE(found, Kind::out_of_bounds_left, "a", 13, 13);
    EXPECT_EQ(found.side, Side::left);
}

TEST_F(Diagnose, says_a_range_of_bytes_where_the_page_is_all_that_is_known) {
    const Diagnosis right = (*this)(page(0x11000));
    EXPECT_BESIDE(right, Kind::out_of_bounds_right, "a", 1, 0x1000);
    EXPECT_EQ(right.bytes_outside, 0U);
    const Diagnosis left = (*this)(page(0xf000));
    EXPECT_BESIDE(left, Kind::out_of_bounds_left, "a", 1, 0x1000);
    const Diagnosis small = (*this)(page(0x21000));
    EXPECT_BESIDE(small, Kind::out_of_bounds_right, "b", 0x1001 - 100, 0x2000 - 100);
}

TEST_F(Diagnose, counts_from_the_buffer_and_not_from_its_page) {
    EXPECT_BESIDE((*this)(starts(0x20064)), Kind::out_of_bounds_right, "b", 1, 1);
    EXPECT_BESIDE((*this)(starts(0x20fff)), Kind::out_of_bounds_right, "b", 0x1000 - 100,
                  0x1000 - 100);
}

TEST_F(Diagnose, sees_an_access_that_begins_inside_and_ends_outside) {
    const Diagnosis found = (*this)(exact(0x10ff0, 64));
    EXPECT_BESIDE(found, Kind::out_of_bounds_right, "a", 1, 1);
    EXPECT_EQ(found.bytes_outside, 48U);
    const Diagnosis before = (*this)(exact(0xfff0, 64));
    EXPECT_BESIDE(before, Kind::out_of_bounds_left, "a", 1, 1);
    EXPECT_EQ(before.bytes_outside, 16U);
}

TEST_F(Diagnose, sees_a_crossing_into_the_next_mapping) {
    const Diagnosis found = (*this)(exact(0x30f00, 0x200));
    EXPECT_BESIDE(found, Kind::crossing, "c", 1, 1);
    EXPECT_EQ(found.next->label, "d");
    EXPECT_EQ(found.bytes_outside, 0x100U);
}

TEST_F(Diagnose, sees_a_crossing_that_was_refused_from_the_first_byte_outside) {
    const std::array<Mapping, 2> two = {mapping(0x1000, 0x80, "low"), mapping(0x5000, 8, "high")};
    const SortedMappings live(two);
    const Diagnosis over = diagnose(live, NoHistory{}, exact(0x1080, 0x3f84));
    EXPECT_EQ(over.kind, Kind::crossing);
    EXPECT_EQ(over.mapping->label, "low");
    EXPECT_EQ(over.next->label, "high");
    EXPECT_EQ(over.side, Side::right);
    EXPECT_EQ(over.bytes_outside, 0x3f84U);
    const Diagnosis under = diagnose(live, NoHistory{}, exact(0x1081, 0x3f83));
    EXPECT_EQ(under.kind, Kind::out_of_bounds_left) << "it begins at no buffer's end";
    EXPECT_EQ(under.mapping->label, "high");
}

TEST_F(Diagnose, sees_what_a_mapping_forbids) {
    const Diagnosis found = (*this)(page(0x20000, Access::write));
    EXPECT_BESIDE(found, Kind::permission, "b", 0, 0);
    EXPECT_EQ(found.left->label, "a");
    EXPECT_EQ(found.right->label, "c");
    EXPECT_EQ((*this)(exact(0x31000, 4, Access::read)).kind, Kind::permission);
    EXPECT_EQ((*this)(exact(0x31000, 4, Access::unknown)).kind, Kind::permission);
}

TEST_F(Diagnose, says_where_the_iommu_disagrees_with_the_mappings) {
    EXPECT_BESIDE((*this)(exact(0x31000, 4)), Kind::mapped_and_allowed, "d", 0, 0);
}

TEST_F(Diagnose, calls_poisoned_what_is_out_of_bounds_inside_them) {
    Record record = exact(0x31000, 4);
    record.reason = Reason::out_of_bounds;
    EXPECT_BESIDE((*this)(record), Kind::poisoned, "d", 0, 0);
}

TEST_F(Diagnose, finds_what_was_unmapped) {
    history.note(mapping(0x40000, 0x2000, "old"), {.time_ns = 5, .thread = 9});
    const Diagnosis found = (*this)(exact(0x41010, 4));
    EXPECT_EQ(found.kind, Kind::use_after_unmap);
    EXPECT_FALSE(found.mapping);
    EXPECT_EQ(found.past->mapping.label, "old");
    EXPECT_EQ(found.past->unmapped.thread, 9U);
    EXPECT_EQ(found.side, Side::inside);
    EXPECT_EQ(found.left->label, "d");
}

TEST_F(Diagnose, blames_a_living_mapping_in_whose_guard_it_lies) {
    history.note(mapping(0x11000, 0x1000, "was here before the guard"), {});
    const Diagnosis found = (*this)(exact(0x11ff0, 4));
    EXPECT_BESIDE(found, Kind::out_of_bounds_right, "a", 0xff1, 0xff1);
    EXPECT_EQ(found.past->mapping.label, "was here before the guard");
}

TEST_F(Diagnose, blames_what_was_there_where_the_neighbour_has_no_guard) {
    history.note(mapping(0x32000, 0x1000, "old"), {});
    const Diagnosis found = (*this)(exact(0x32000, 4));
    EXPECT_EQ(found.kind, Kind::use_after_unmap);
    EXPECT_EQ(found.left->label, "d");
}

/// As QEMU maps all memory before a guest turns its IOMMU on.
TEST_F(Diagnose, blames_a_buffer_at_whose_edge_it_lies_before_memory_that_was_mapped_there) {
    history.note(mapping(0, 0x100000, "memory"), {});
    const Diagnosis right = (*this)(exact(0x32000, 64));
    EXPECT_BESIDE(right, Kind::out_of_bounds_right, "d", 1, 1);
    EXPECT_EQ(right.bytes_outside, 64U);
    EXPECT_EQ(right.past->mapping.label, "memory");
    const Diagnosis left = (*this)(exact(0x2ffc0, 64));
    EXPECT_BESIDE(left, Kind::out_of_bounds_left, "c", 1, 1);
    EXPECT_EQ((*this)(exact(0x32001, 64)).kind, Kind::use_after_unmap) << "not at the edge";
    EXPECT_EQ((*this)(exact(0x2ffbf, 64)).kind, Kind::use_after_unmap);
    EXPECT_EQ((*this)(page(0x32000)).kind, Kind::use_after_unmap) << "which byte is not known";
    history.note(mapping(0x32000, 0x1000, "buffer"), {});
    EXPECT_EQ((*this)(exact(0x32000, 64)).kind, Kind::use_after_unmap) << "of a later buffer";
}

TEST_F(Diagnose, blames_a_past_buffer_of_which_a_neighbour_reuses_a_part) {
    history.note(mapping(0x31000, 0x4000, "four pages"), {});
    const Diagnosis found = (*this)(exact(0x32000, 64));
    EXPECT_EQ(found.kind, Kind::use_after_unmap);
    EXPECT_EQ(found.past->mapping.label, "four pages");
    EXPECT_EQ(found.left->label, "d");
}

TEST_F(Diagnose, blames_a_past_mapping_that_lay_beside_its_neighbour) {
    history.note(mapping(0x32000, 0x100000, "memory"), {});
    EXPECT_EQ((*this)(exact(0x32000, 64)).kind, Kind::use_after_unmap);
}

TEST_F(Diagnose, blames_no_past_mapping_that_forbade_the_access) {
    history.note(mapping(0x31000, 0x2000, "two pages", Allows::read), {});
    EXPECT_BESIDE((*this)(exact(0x32000, 64)), Kind::out_of_bounds_right, "d", 1, 1);
    EXPECT_EQ((*this)(exact(0x32000, 64, Access::read)).kind, Kind::use_after_unmap);
    EXPECT_EQ((*this)(exact(0x32000, 64, Access::unknown)).kind, Kind::use_after_unmap);
}

TEST_F(Diagnose, sees_an_overrun_of_what_was_unmapped) {
    history.note(mapping(0x900000, 0x1000, "old"), {});
    const Diagnosis found = (*this)(exact(0x901008, 4));
    EXPECT_EQ(found.kind, Kind::use_after_unmap);
    EXPECT_EQ(found.side, Side::right);
    EXPECT_EQ(found.distance, (Distance{9, 9}));
}

TEST_F(Diagnose, calls_wild_what_is_far_from_everything) {
    history.note(mapping(0x900000, 0x1000, "old"), {});
    const Diagnosis found = (*this)(starts(0xdead0000));
    EXPECT_EQ(found.kind, Kind::wild);
    EXPECT_FALSE(found.mapping);
    EXPECT_EQ(found.left->label, "d");
    EXPECT_FALSE(found.right);
}

TEST_F(Diagnose, reach_says_what_is_far) {
    const Record record = exact(0x31fff + 1 + 0x5000, 1);
    const SortedMappings live(buffers);
    EXPECT_EQ(diagnose(live, NoHistory{}, record, {.reach = ByteCount(0x5000)}).kind, Kind::wild);
    EXPECT_EQ(diagnose(live, NoHistory{}, record, {.reach = ByteCount(0x5001)}).kind,
              Kind::out_of_bounds_right);
}

TEST_F(Diagnose, says_where_nothing_was_ever_mapped) {
    const Diagnosis found = diagnose(SortedMappings({}), NoHistory{}, page(0));
    EXPECT_EQ(found.kind, Kind::never_mapped);
}

TEST_F(Diagnose, looks_at_no_mapping_where_the_device_has_no_domain) {
    Record record = page(0x20000);
    record.reason = Reason::not_attached;
    EXPECT_EQ((*this)(record).kind, Kind::not_attached);
    record.reason = Reason::interrupt;
    EXPECT_EQ((*this)(record).kind, Kind::no_access);
    EXPECT_EQ((*this)({}).kind, Kind::no_access);
}

TEST_F(Diagnose, holds_at_both_ends_of_the_address_space) {
    const std::uint64_t top = ~std::uint64_t{0} - 0xfff;
    const std::array<Mapping, 2> ends = {mapping(0, 0x1000, "zero"), mapping(top, 0x1000, "top")};
    const SortedMappings live(ends);
    const Diagnosis zero = diagnose(live, NoHistory{}, exact(0xff0, 0x20));
    EXPECT_BESIDE(zero, Kind::out_of_bounds_right, "zero", 1, 1);
    EXPECT_FALSE(zero.left);
    const Diagnosis last = diagnose(live, NoHistory{}, exact(top - 1, 1));
    EXPECT_BESIDE(last, Kind::out_of_bounds_left, "top", 1, 1);
    EXPECT_EQ(diagnose(live, NoHistory{}, exact(top + 0xfff, 1)).kind, Kind::mapped_and_allowed);
}

/// 100,000 live mappings and a million past ones, stored in the given `order`.
template <class Order>
std::uint64_t most_steps(const Order& order) {
    std::vector<Mapping> live;
    for (std::uint64_t index = 0; index != 100'000; ++index)
        live.push_back(mapping(index << 20, 0x1000, "live"));
    History history(1'000'000);
    for (const std::uint64_t index : order())
        history.note(mapping((index << 16) + 0x8000, 0x1000, "past"), {});
    history.catch_up();
    std::mt19937_64 random(1);
    std::uint64_t most = 0;
    for (int question = 0; question != 20'000; ++question) {
        const std::uint64_t at = random() % (1'700'000ULL << 16);
        most = std::max(most,
                        diagnose(SortedMappings(live), history, page(at & ~0xfffULL)).steps.count);
    }
    // The ends, where an unbalanced index would be deep.
    for (std::uint64_t index : {0ULL, 99'999ULL << 4, 999'998ULL, 999'999ULL, 1'600'000ULL})
        most =
            std::max(most, diagnose(SortedMappings(live), history, page(index << 16)).steps.count);
    return most;
}

TEST(DiagnoseSteps, are_few_with_mappings_undone_in_order) {
    const auto in_order = [] {
        std::vector<std::uint64_t> order(1'000'000);
        std::iota(order.begin(), order.end(), 0U);
        return order;
    };
    EXPECT_LE(most_steps(in_order), 64U);
}

TEST(DiagnoseSteps, are_few_with_mappings_undone_in_any_order) {
    const auto shuffled = [] {
        std::vector<std::uint64_t> order(1'000'000);
        std::iota(order.begin(), order.end(), 0U);
        std::shuffle(order.begin(), order.end(), std::mt19937_64(7));
        return order;
    };
    EXPECT_LE(most_steps(shuffled), 64U);
}

} // namespace

} // namespace moat::fault
