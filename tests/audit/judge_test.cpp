// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The judge alone: its verdicts on canaries, fault records and a device's status.
#include "audit/judge.hpp"

#include <cstring>
#include <gtest/gtest.h>
#include <optional>

namespace moat::tests {
namespace {

using audit::Finding;
using audit::FindingKind;
using audit::Inspected;
using audit::Placed;
using audit::Verdict;
using fault::Access;
using fault::Reason;

constexpr std::uint16_t requester = 0x28;

Placed placed(std::string_view label, std::uint64_t start, std::uint64_t bytes,
              audit::Direction direction) {
    const std::uint64_t first = start & ~std::uint64_t{0xfff};
    return {.label = label,
            .direction = direction,
            .range = IovaRange(Iova(start), ByteCount(bytes)),
            .pages = IovaRange(Iova(first), ByteCount(0x1000)),
            .memory = {},
            .decoy = {}};
}

class JudgeTest : public testing::Test {
  protected:
    JudgeTest() {
        kept = {{placed("queue", 0x10000, 1024, audit::Direction::to_device)}};
        data = {placed("data", 0x20000, 512, audit::Direction::from_device)};
    }

    std::vector<Finding> judge(Verdict verdict = Verdict::success) {
        const audit::Observed seen{.operation = "read",
                                   .about = {.number = 5},
                                   .answer = audit::Answer{.verdict = verdict},
                                   .requester = requester,
                                   .guard = ByteCount(4096),
                                   .kept = kept,
                                   .given = data ? std::span<const Inspected>(&*data, 1)
                                                 : std::span<const Inspected>(),
                                   .unwritten = unwritten,
                                   .wrong = wrong,
                                   .retired = changed_later,
                                   .faults = faults};
        return audit::judge(seen, {history, retired});
    }

    void fault(Access access, std::uint64_t at, std::uint64_t bytes, Reason reason,
               std::uint16_t by = requester) {
        faults.push_back(fault::exact_record(fault::Source::requester(by), access,
                                             IovaRange(Iova(at), ByteCount(bytes)), reason));
    }

    std::vector<Inspected> kept;
    std::optional<Inspected> data;
    std::uint64_t unwritten = 0;
    std::optional<audit::WrongData> wrong;
    std::vector<Inspected> changed_later;
    std::vector<fault::Record> faults;
    fault::History history{16};
    std::deque<Placed> retired;
};

TEST_F(JudgeTest, says_nothing_where_nothing_was) {
    EXPECT_TRUE(judge().empty());
    EXPECT_TRUE(judge(Verdict::failure).empty()) << "a device may refuse";
}

TEST_F(JudgeTest, canaries_and_the_fault_behind_them_are_one_finding) {
    data->changed.after = 16;
    fault(Access::write, 0x21000, 48, Reason::not_present);
    const auto found = judge();
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].kind, FindingKind::wrote_outside);
    EXPECT_EQ(found[0].buffer, "data");
    EXPECT_EQ(found[0].side, fault::Side::right);
    EXPECT_EQ(found[0].bytes, 64U);
    EXPECT_EQ(found[1].kind, FindingKind::success_though_blocked);
    EXPECT_EQ(judge(Verdict::failure).size(), 1U) << "blocked, and it said so";
}

TEST_F(JudgeTest, access_that_a_buffer_forbids_is_outside) {
    fault(Access::write, 0x10000, 8, Reason::permission);
    const auto found = judge(Verdict::failure);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::wrote_outside);
    EXPECT_EQ(found[0].buffer, "queue");
    EXPECT_EQ(found[0].side, fault::Side::inside);
    EXPECT_EQ(found[0].bytes, 8U);
}

/// A virtio-iommu gives the kind of an access that a leaf forbids, and of no other.
TEST_F(JudgeTest, access_of_unknown_kind_to_an_unmapped_buffer_is_late) {
    fault(Access::unknown, 0x20000, 512, Reason::permission);
    const auto found = judge();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::touched_after_completion);
    EXPECT_EQ(found[0].bytes, 512U);
}

TEST_F(JudgeTest, access_of_unknown_kind_is_what_its_buffer_is_for) {
    fault(Access::unknown, 0x20000 + 512, 4, Reason::permission);
    auto found = judge(Verdict::failure);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::wrote_outside);
    data->placed.direction = audit::Direction::to_device;
    found = judge(Verdict::failure);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::read_outside);
}

TEST_F(JudgeTest, write_into_what_was_unmapped_is_late) {
    fault(Access::write, 0x20000, 512, Reason::not_present);
    const auto found = judge();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::touched_after_completion);
    EXPECT_EQ(found[0].buffer, "data");
    EXPECT_EQ(found[0].bytes, 512U);
}

TEST_F(JudgeTest, retired_buffer_that_changed_is_late_without_a_fault) {
    Placed before = placed("data", 0x30000, 512, audit::Direction::from_device);
    before.case_number = 3;
    changed_later.push_back({before, {.inside = 100, .after = 4}});
    const auto found = judge();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::touched_after_completion);
    EXPECT_EQ(found[0].bytes, 104U);
    EXPECT_EQ(found[0].first_case, 3U) << "the case whose buffer it was";
    EXPECT_FALSE(found[0].record);
}

TEST_F(JudgeTest, decoy_that_changed_is_a_bypass) {
    data->changed.decoy = 512;
    const auto found = judge();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::bypasses_iommu);
    EXPECT_EQ(found[0].bytes, 512U);
}

TEST_F(JudgeTest, fault_at_a_pointer_of_a_decoy_is_a_bypass) {
    constexpr std::uint64_t pointer = 0xa68f'abbc'a68f'a123;
    std::vector<std::byte> decoy(data->placed.end());
    std::memcpy(decoy.data() + 16, &pointer, sizeof pointer);
    data->placed.decoy = decoy;
    fault(Access::write, pointer & ~std::uint64_t{0xfff}, 0x1000, Reason::not_present);
    fault(Access::write, 0xa68f'abbc'a68f'b000, 0x1000, Reason::not_present);
    auto found = judge();
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].kind, FindingKind::bypasses_iommu);
    EXPECT_EQ(found[0].buffer, "data");
    EXPECT_EQ(found[1].kind, FindingKind::fault_without_access) << "the page after it";
    data->placed.decoy = {};
    EXPECT_EQ(judge()[0].kind, FindingKind::fault_without_access);
}

TEST_F(JudgeTest, fault_of_another_device_or_of_nowhere_is_no_operation_s) {
    fault(Access::write, 0x21000, 64, Reason::not_present, requester + 8);
    fault(Access::write, 0x7000'0000'0000, 64, Reason::not_present);
    const auto found = judge();
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].kind, FindingKind::fault_without_access);
    EXPECT_EQ(found[1].kind, FindingKind::fault_without_access);
}

TEST_F(JudgeTest, no_answer_is_a_hang) {
    const auto found = judge(Verdict::no_answer);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::hang);
}

TEST_F(JudgeTest, end_that_was_not_written_counts_where_the_device_says_success) {
    unwritten = 3; // may be chance
    EXPECT_TRUE(judge().empty());
    unwritten = 64;
    EXPECT_TRUE(judge(Verdict::failure).empty());
    const auto found = judge();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::left_unwritten);
    EXPECT_EQ(found[0].bytes, 64U);
}

TEST_F(JudgeTest, wrong_data_counts_where_nothing_else_explains_it) {
    wrong = {.offset = 64,
             .bytes = 16,
             .expected = {.case_number = 4, .at = 0x1040},
             .origin = audit::Origin{.case_number = 2, .at = 0x80},
             .first_case = 2};
    EXPECT_TRUE(judge(Verdict::failure).empty());
    unwritten = 64;
    EXPECT_EQ(judge()[0].kind, FindingKind::left_unwritten);
    unwritten = 0;
    const auto found = judge();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, FindingKind::wrong_data);
    EXPECT_EQ(found[0].buffer, "data");
    EXPECT_EQ(found[0].bytes, 16U);
    EXPECT_EQ(found[0].first_case, 2U);
    EXPECT_NE(found[0].report.find("not what case 4 stored at byte 0x1040 of the medium, but what "
                                   "case 2 stored at byte 0x80"),
              std::string::npos)
        << found[0].report;
}

} // namespace
} // namespace moat::tests
