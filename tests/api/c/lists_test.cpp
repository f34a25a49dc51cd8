// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Additions of MOAT_1.1: scatter lists, poison and interrupts.
#include "fixture.hpp"

namespace moat::tests {
namespace {

TEST_F(CApi, a_list_is_one_range_with_a_segment_for_each_guarded_piece) {
    open();
    const std::array<moat_piece, 2> pieces = {moat_piece{memory.data(), 4096},
                                              moat_piece{memory.data() + 8192, 100}};
    moat_segment_limits limits = MOAT_SEGMENT_LIMITS_INIT;
    limits.guard_bytes = 4096;
    std::array<moat_segment, 2> segments{};
    std::size_t count = 0;
    std::uint64_t iova = 0;
    std::uint64_t bytes = 0;
    ASSERT_EQ(moat_map_list(container, pieces.data(), 2, MOAT_BIDIRECTIONAL, &limits, "list",
                            segments.data(), &count, &iova, &bytes, &error),
              MOAT_OK)
        << error.text;
    EXPECT_EQ(count, 2U);
    EXPECT_EQ(segments[0].bytes, 4096U);
    EXPECT_EQ(segments[1].bytes, 100U);
    EXPECT_EQ(write(segments[1].iova, 100), MOAT_OK);
    EXPECT_EQ(memory[8192 + 99], 0xee);
    EXPECT_EQ(write(segments[0].iova, 4097), MOAT_REFUSED);
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].label, "list");
    EXPECT_EQ(unmap(iova, bytes), MOAT_OK);

    ASSERT_EQ(moat_map_list(container, pieces.data(), 2, MOAT_BIDIRECTIONAL, nullptr, nullptr,
                            segments.data(), &count, &iova, &bytes, &error),
              MOAT_OK)
        << error.text;
    EXPECT_EQ(count, 1U) << "no guard: addresses follow one another";
    EXPECT_EQ(unmap(iova, bytes), MOAT_OK);
}

TEST_F(CApi, a_list_that_cannot_be_is_an_error) {
    open();
    const moat_piece piece = {memory.data(), 4096};
    moat_segment segment{};
    std::size_t count = 7;
    std::uint64_t iova = 0;
    std::uint64_t bytes = 0;
    const auto map = [&](const moat_piece* what, std::size_t pieces, std::int32_t direction,
                         const moat_segment_limits* limits) {
        return moat_map_list(container, what, pieces, direction, limits, "", &segment, &count,
                             &iova, &bytes, &error);
    };
    EXPECT_EQ(map(&piece, 0, 0, nullptr), MOAT_EMPTY);
    EXPECT_EQ(map(nullptr, 1, 0, nullptr), MOAT_INVALID);
    EXPECT_EQ(map(&piece, 1, 3, nullptr), MOAT_INVALID);
    moat_segment_limits limits = MOAT_SEGMENT_LIMITS_INIT;
    limits.longest_bytes = 4095;
    EXPECT_EQ(map(&piece, 1, 0, &limits), MOAT_OUT_OF_RANGE);
    limits.boundary_bytes = 4097;
    EXPECT_EQ(map(&piece, 1, 0, &limits), MOAT_UNSUPPORTED);
    limits.size = sizeof limits - 8;
    EXPECT_EQ(map(&piece, 1, 0, &limits), MOAT_INVALID);
    const moat_piece huge = {memory.data(), SIZE_MAX};
    EXPECT_EQ(map(&huge, 1, 0, nullptr), MOAT_OVERFLOW);
    const moat_piece null = {nullptr, 1};
    EXPECT_EQ(map(&null, 1, 0, nullptr), MOAT_OUT_OF_RANGE);
    EXPECT_EQ(count, 7U);
}

TEST_F(CApi, poisoned_bytes_are_out_of_reach_until_they_are_not) {
    open("level=exact");
    const std::uint64_t iova = map(memory.data(), 4096);
    EXPECT_EQ(moat_poison(container, iova + 64, 64, &error), MOAT_OK) << error.text;
    EXPECT_EQ(write(iova + 64, 1), MOAT_REFUSED);
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].fault.kind, MOAT_FAULT_POISONED);
    EXPECT_EQ(moat_unpoison(container, iova + 64, 64, &error), MOAT_OK) << error.text;
    EXPECT_EQ(write(iova + 64, 1), MOAT_OK);
    EXPECT_EQ(moat_poison(container, iova, 0, &error), MOAT_EMPTY);
    EXPECT_EQ(moat_poison(container, iova, 4097, &error), MOAT_NOT_FOUND);
    EXPECT_EQ(unmap(iova, 4096), MOAT_OK);
}

TEST_F(CApi, interrupts_are_taken_once) {
    open();
    std::uint32_t enabled = 0;
    std::int32_t raised = -1;
    EXPECT_EQ(moat_device_raise_interrupt(device, 0, &error), MOAT_OUT_OF_RANGE);
    EXPECT_EQ(moat_device_enable_interrupts(device, 0, &enabled, &error), MOAT_EMPTY);
    EXPECT_EQ(moat_device_enable_interrupts(device, 2, nullptr, &error), MOAT_INVALID);
    EXPECT_EQ(moat_device_enable_interrupts(device, 2, &enabled, &error), MOAT_OK) << error.text;
    EXPECT_EQ(enabled, 2U);
    EXPECT_EQ(moat_device_raise_interrupt(device, 1, &error), MOAT_OK);
    EXPECT_EQ(moat_device_wait_for_interrupt(device, 1, 1000, &raised, &error), MOAT_OK);
    EXPECT_EQ(raised, 1);
    EXPECT_EQ(moat_device_wait_for_interrupt(device, 1, 0, &raised, &error), MOAT_OK);
    EXPECT_EQ(raised, 0);
    EXPECT_EQ(moat_device_wait_for_interrupt(device, 2, 0, &raised, &error), MOAT_OUT_OF_RANGE);
    EXPECT_EQ(moat_device_wait_for_interrupt(nullptr, 0, 0, &raised, &error), MOAT_INVALID);
}

} // namespace
} // namespace moat::tests
