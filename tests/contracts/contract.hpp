// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The contract of every public function that takes a number: whatever the number, the function
// returns, and where it fails it names the number and has changed nothing. An error about what
// lives at an address (overlap, not_found, ...) names where; one about the number itself carries
// it.
//
// A row is one function. The driver calls it with every hostile value in each of its numbers, the
// others good, and with every pair of hostile values in each two of them. A row runs in a child
// process, so that a call that ends the process, or never returns, is one failure of the test.
#pragma once

#include "moat/core/result.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace moat::tests {

/// One number that a function takes.
struct Argument {
    const char* name;
    std::uint64_t good;
    unsigned bits = 64;                   ///< of its type; wider values are cut
    bool named = true;                    ///< an error that this number causes carries it
    std::vector<std::uint64_t> more = {}; ///< hostile values of this number alone
};

using Values = std::span<const std::uint64_t>;

/// What a call came to: the error, or nothing where it succeeded (and was undone).
using Outcome = std::optional<Error>;

template <class T>
[[nodiscard]] Outcome outcome(const Result<T>& result) {
    return result ? Outcome() : Outcome(result.error());
}

/// Whatever a call without an error returns.
inline constexpr std::nullopt_t returned = std::nullopt;

/// One function. `call` gets a value for each argument. `state` describes what a call that fails
/// may not change; a call that succeeds is undone by `call`.
struct Row {
    std::string name;
    std::vector<Argument> arguments;
    std::function<Outcome(Values)> call;
    std::function<std::string()> state = [] { return std::string(); };
    bool good_succeeds = true; ///< the call with every number good
};

/// Makes the rows that share a fixture; called once in every child.
using MakeRows = std::function<std::vector<Row>()>;

/// Runs the rows, and fails the current test with a line for each call that broke the contract.
void expect_contracts(const MakeRows& make_rows, std::uint64_t page = 4096);

/// As above, but Return: the lines. For the driver's own tests.
[[nodiscard]] std::vector<std::string> broken_contracts(const MakeRows& make_rows,
                                                        std::uint64_t page = 4096);

} // namespace moat::tests
