// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Random operations against a plain model, and each allocation failed once, for every format. A
// failure prints the seed and the operations; MOAT_SEED=N runs one seed again.
#include "operations.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <random>
#include <sstream>

namespace {

using namespace moat;
using namespace moat::tests;

/// The seeds to run: a fixed few, or the one in MOAT_SEED.
std::vector<std::uint64_t> seeds() {
    if (const char* asked = std::getenv("MOAT_SEED"))
        return {std::strtoull(asked, nullptr, 0)};
    return {1, 2, 3, 4};
}

Choose choose_by(std::mt19937_64& random) {
    return [&random](std::uint64_t below) { return random() % below; };
}

class Random : public ::testing::TestWithParam<FormatUnderTest> {};

MOAT_FOR_EVERY_FORMAT(Random);

TEST_P(Random, operations_do_what_a_plain_model_does) {
    const FormatFacts& facts = GetParam().facts;
    for (const std::uint64_t seed : seeds()) {
        std::mt19937_64 random(seed);
        const Choose choose = choose_by(random);
        const auto engine = GetParam().engine();
        Model model;
        std::ostringstream log;
        log << "MOAT_SEED=" << seed << '\n';
        for (unsigned step = 0; step != 400; ++step) {
            const Operation operation = choose_operation(facts, choose);
            log << step << ": " << operation.describe() << '\n';
            ASSERT_EQ(perform(operation, facts, *engine, model), "") << log.str();
            ASSERT_FALSE(HasFatalFailure()) << log.str();
            if (step % 8 == 7) {
                ASSERT_EQ(compare(*engine, model), "") << log.str();
            }
        }
    }
}

TEST_P(Random, an_allocation_that_fails_changes_nothing) {
    const FormatFacts& facts = GetParam().facts;
    std::uint64_t failures = 0;
    for (const std::uint64_t seed : seeds()) {
        std::mt19937_64 random(seed);
        const Choose choose = choose_by(random);
        const auto engine = GetParam().engine();
        Model model;
        for (unsigned step = 0; step != 60; ++step) {
            const Operation operation = choose_operation(facts, choose);
            // With 0, 1, 2 ... allocations, until the operation needs no more.
            for (std::uint64_t allowed = 0;; ++allowed) {
                Model after = model;
                const std::uint64_t tables = engine->tables_in_use();
                engine->allow_allocations(allowed);
                ASSERT_EQ(perform(operation, facts, *engine, after), "")
                    << "MOAT_SEED=" << seed << " " << operation.describe();
                engine->allow_allocations(std::nullopt);
                ASSERT_EQ(compare(*engine, after), "")
                    << "MOAT_SEED=" << seed << ", " << allowed
                    << " allocations allowed: " << operation.describe();
                if (after.merged() != model.merged() || engine->tables_in_use() != tables ||
                    allowed == 8) {
                    model = after;
                    break;
                }
                ++failures;
            }
            ASSERT_EQ(perform(operation, facts, *engine, model), "");
        }
    }
    EXPECT_GT(failures, 0U);
}

} // namespace
