// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver itself: it finds each way to break the contract, and accepts a function that keeps it.
#include "moat/core/check.hpp"

#include "contract.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdexcept>

namespace moat::tests {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> broken_by(std::function<Outcome(std::uint64_t)> function) {
    return broken_contracts([=] {
        return std::vector<Row>{{.name = "f",
                                 .arguments = {{.name = "a", .good = 0x1000}},
                                 .call = [=](Values v) { return function(v[0]); }}};
    });
}

constexpr std::uint64_t top = ~std::uint64_t{0};

Outcome refuse_top(std::uint64_t value) {
    if (value != top)
        return {};
    return Error(ErrorCode::out_of_range, "too large", {"a", value});
}

TEST(ContractDriver, accepts_a_function_that_keeps_it) {
    EXPECT_THAT(broken_by(refuse_top), IsEmpty());
}

TEST(ContractDriver, finds_a_check_that_fails) {
    EXPECT_THAT(broken_by([](std::uint64_t value) -> Outcome {
                    MOAT_CHECK(value != top, "not so much");
                    return {};
                }),
                Contains(HasSubstr("f(a=0xffffffffffffffff) ended the process: Aborted")));
}

TEST(ContractDriver, goes_on_after_a_call_that_ended_the_process) {
    const auto lines = broken_by([](std::uint64_t value) -> Outcome {
        MOAT_CHECK(value != 0 && value != top, "not so much");
        return {};
    });
    EXPECT_EQ(lines.size(), 2U);
}

TEST(ContractDriver, finds_an_error_that_does_not_name_the_value) {
    EXPECT_THAT(broken_by([](std::uint64_t value) {
                    return value == top ? Outcome(Error(ErrorCode::limit, "no", {"a", 0x12345}))
                                        : Outcome();
                }),
                Contains(HasSubstr("does not name a: limit: no (a=0x12345)")));
}

TEST(ContractDriver, finds_an_exception) {
    EXPECT_THAT(broken_by([](std::uint64_t value) -> Outcome {
                    return value == top ? throw std::length_error("long") : Outcome();
                }),
                Contains(HasSubstr("threw long")));
}

TEST(ContractDriver, finds_a_change_by_a_call_that_failed) {
    EXPECT_THAT(broken_contracts([] {
                    const auto state = std::make_shared<int>(0);
                    return std::vector<Row>{{.name = "f",
                                             .arguments = {{.name = "a", .good = 1}},
                                             .call =
                                                 [=](Values v) {
                                                     *state += v[0] == top ? 1 : 0;
                                                     return refuse_top(v[0]);
                                                 },
                                             .state = [=] { return std::to_string(*state); }}};
                }),
                Contains(HasSubstr("changed [0] to [1]")));
}

TEST(ContractDriver, calls_with_pairs) {
    EXPECT_THAT(
        broken_contracts([] {
            return std::vector<Row>{
                {.name = "f",
                 .arguments = {{.name = "a", .good = 1}, {.name = "b", .good = 1}},
                 .call = [](Values v) -> Outcome {
                     MOAT_CHECK(v[0] < top - 1 || v[1] == 1, "never together");
                     return {};
                 }}};
        }),
        Contains(AllOf(HasSubstr("f(a=0xffffffffffffff"), HasSubstr(") ended the process"))));
}

} // namespace
} // namespace moat::tests
