// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine with drivers that make one mistake: the finding names the case, and the cases that it
// names reproduce it.
#include "moat/core/text.hpp"

#include "audit/audit.hpp"
#include "audit/subject.hpp"

#include <algorithm>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using audit::Answer;
using audit::Buffer;
using audit::Finding;
using audit::FindingKind;
using audit::Request;
using audit::Verdict;

constexpr std::uint64_t queue_bytes = 1024;

/// A device without effects except in one case, which its length identifies.
class Queue final : public audit::Driver {
  public:
    using Wrong = std::function<Answer(const Buffer& queue)>;

    static constexpr std::array operations_of_queue = {
        audit::Operation{.name = "write",
                         .direction = audit::Direction::to_device,
                         .granule = ByteCount(4),
                         .longest = ByteCount(16384)}};

    Queue(Buffer queue, ByteCount length, Wrong wrong)
        : Driver("queue", operations_of_queue), queue_(queue), length_(length),
          wrong_(std::move(wrong)) {}

  private:
    [[nodiscard]] Result<Answer> do_run(const Request& request) override {
        return request.length == length_ ? wrong_(queue_) : Answer{.verdict = Verdict::success};
    }

    Buffer queue_;
    ByteCount length_;
    Wrong wrong_;
};

class Engine : public testing::Test {
  protected:
    static constexpr std::uint64_t wrong_case = 5;

    /// The cases [first, end) with a driver that makes a mistake in case 5.
    static std::vector<Finding> run(const Queue::Wrong& wrong, std::uint64_t first,
                                    std::uint64_t end) {
        auto subject = audit::Subject::start(audit::kinds().front(), {});
        EXPECT_TRUE(subject);
        audit::AuditOptions options = (*subject)->options();
        options.placements = audit::Placements::left;
        options.first_case = first;
        options.end_case = end;
        options.probe = [&](const audit::Seat& seat) -> Result<std::unique_ptr<audit::Driver>> {
            const auto queue =
                seat.buffers.obtain({.what = "queue", .size = ByteCount(queue_bytes)});
            EXPECT_TRUE(queue);
            auto driver = std::make_unique<Queue>(*queue, ByteCount(0), wrong);
            const audit::Plan plan(driver->operations(), options.placements, options.seed);
            return std::make_unique<Queue>(*queue, plan.at(wrong_case).length, wrong);
        };
        auto report = audit::audit_function((*subject)->machine(), (*subject)->address(), options);
        EXPECT_TRUE(report) << report.error();
        return report->findings;
    }

    /// Return: the findings of all cases, and those of the cases that a finding names.
    static Finding expect_one(const Queue::Wrong& wrong) {
        const std::vector<Finding> whole = run(wrong, 0, 18);
        EXPECT_EQ(whole.size(), 1U);
        if (whole.empty())
            return {};
        const Finding& one = whole[0];
        EXPECT_LE(one.first_case, wrong_case);
        EXPECT_GE(one.about.number, wrong_case);
        const std::vector<Finding> alone = run(wrong, one.first_case, one.about.number + 1);
        EXPECT_FALSE(alone.empty());
        if (!alone.empty()) {
            EXPECT_EQ(alone[0].kind, one.kind);
            EXPECT_EQ(alone[0].buffer, one.buffer);
            EXPECT_EQ(alone[0].side, one.side);
            EXPECT_EQ(alone[0].bytes, one.bytes);
        }
        return one;
    }
};

TEST_F(Engine, beside_a_queue_is_found_in_the_very_case) {
    const Finding found = expect_one([](const Buffer& queue) {
        queue.bytes.data()[queue_bytes] = std::byte{0};
        return Answer{.verdict = Verdict::success};
    });
    EXPECT_EQ(found.kind, FindingKind::wrote_outside);
    EXPECT_EQ(found.buffer, "queue");
    EXPECT_EQ(found.side, fault::Side::right);
    EXPECT_EQ(found.bytes, 1U);
    EXPECT_EQ(found.first_case, wrong_case);
    EXPECT_EQ(found.about.number, wrong_case);
}

/// With queues, the engine inspects all memory periodically; a finding names the cases since the
/// last inspection.
TEST_F(Engine, far_from_a_queue_in_its_page_is_found_soon) {
    const auto stray = [](const Buffer& queue) {
        queue.bytes.data()[queue_bytes + 2000] = std::byte{0};
        return Answer{.verdict = Verdict::success};
    };
    const Finding found = expect_one(stray);
    EXPECT_EQ(found.kind, FindingKind::wrote_outside);
    EXPECT_EQ(found.buffer, "queue");
    EXPECT_EQ(found.bytes, 1U);
    EXPECT_EQ(found.first_case, 0U);
    EXPECT_EQ(found.about.number, 15U);
    EXPECT_EQ(run(stray, wrong_case, wrong_case + 1).size(), 1U) << "at the end, all is looked at";
}

TEST_F(Engine, no_answer_is_a_hang) {
    const Finding found =
        expect_one([](const Buffer&) { return Answer{.verdict = Verdict::no_answer, .code = 7}; });
    EXPECT_EQ(found.kind, FindingKind::hang);
    EXPECT_EQ(found.about.number, wrong_case);
    EXPECT_NE(found.report.find("0x7"), std::string::npos) << found.report;
}

/// A driver that passes its device, in one case, an address that was never mapped.
class Wild final : public audit::Driver {
  public:
    Wild(std::unique_ptr<audit::Driver> inner, ByteCount length)
        : Driver(inner->name(), inner->operations()), inner_(std::move(inner)), length_(length) {}

  private:
    [[nodiscard]] Result<Answer> do_run(const Request& request) override {
        Request told = request;
        if (request.length == length_)
            told.data = Iova(0x7'0000'0000);
        return inner_->run(told);
    }

    std::unique_ptr<audit::Driver> inner_;
    ByteCount length_;
};

TEST(EngineOnEdu, address_that_nobody_ever_had_is_a_fault_without_access) {
    const auto run = [](std::uint64_t first, std::uint64_t end) {
        const auto kind = std::ranges::find_if(audit::kinds(), [](const audit::Kind& each) {
            return each.machine == "soft" && each.name == "edu";
        });
        auto subject = audit::Subject::start(*kind, {});
        EXPECT_TRUE(subject);
        audit::AuditOptions options = (*subject)->options();
        options.first_case = first;
        options.end_case = end;
        options.probe = [](const audit::Seat& seat) -> Result<std::unique_ptr<audit::Driver>> {
            auto driver = audit::probe(seat);
            EXPECT_TRUE(driver);
            const audit::Plan plan((*driver)->operations(), audit::Placements::both, 1);
            return std::make_unique<Wild>(std::move(*driver), plan.at(3).length);
        };
        auto report = audit::audit_function((*subject)->machine(), (*subject)->address(), options);
        EXPECT_TRUE(report) << report.error();
        return report->findings;
    };
    const std::vector<Finding> whole = run(0, 9); // index of the write
    ASSERT_EQ(whole.size(), 1U);
    EXPECT_EQ(whole[0].kind, FindingKind::fault_without_access);
    EXPECT_EQ(whole[0].about.number, 3U);
    const std::vector<Finding> alone = run(whole[0].first_case, whole[0].about.number + 1);
    ASSERT_EQ(alone.size(), 1U);
    EXPECT_EQ(alone[0].kind, whole[0].kind);
}

} // namespace
} // namespace moat::tests
