// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MOAT_TRY and MOAT_LET: errors travel, values arrive, and the call happens once.

#include <gtest/gtest.h>
#include <memory>

namespace moat::tests {
namespace {

class Try : public testing::Test {
  protected:
    Result<void> step(bool works) {
        ++calls;
        return works ? Result<void>() : fail(ErrorCode::busy, "does not work");
    }

    Result<std::unique_ptr<int>> value(bool works) {
        MOAT_TRY(step(works));
        return std::make_unique<int>(7);
    }

    /// The outcome of two calls, in another type.
    Result<int> sum(bool first, bool second) {
        MOAT_LET(const auto one, value(first));
        MOAT_LET(auto other, value(second));
        return *one + *other;
    }

    int calls = 0;
};

TEST_F(Try, values_arrive_moved) {
    EXPECT_EQ(sum(true, true), 14);
    EXPECT_EQ(calls, 2);
}

TEST_F(Try, first_error_ends_the_function) {
    const auto failed = sum(false, true);
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code(), ErrorCode::busy);
    EXPECT_EQ(calls, 1) << "the second call does not happen";
}

TEST_F(Try, later_error_is_returned) {
    EXPECT_FALSE(sum(true, false));
    EXPECT_EQ(calls, 2);
}

TEST_F(Try, error_leaves_an_assigned_variable_alone) {
    std::unique_ptr<int> kept = std::make_unique<int>(3);
    const auto assign = [&]() -> Result<void> {
        MOAT_LET(kept, value(false));
        return {};
    };
    EXPECT_FALSE(assign());
    EXPECT_EQ(*kept, 3);
}

} // namespace
} // namespace moat::tests
