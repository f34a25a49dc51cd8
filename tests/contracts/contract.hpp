// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The contract of every public function that takes a number: with any number the function returns,
// and on failure it names the number and changes nothing. An error about what lies at an address
// (overlap, not_found, ...) names an address; an error about the number carries it.
//
// A row is one function. The driver calls it with every hostile value in each of its numbers, the
// others valid, and with every pair of hostile values in any two of them (a sanitizer's build: with
// a fixed share of the pairs). A row runs in a child process, so that a call that crashes or hangs
// is one failure of the test.
#pragma once

#include "moat/core/result.hpp"

#include <cstddef>
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
    bool named = true;                    ///< an error caused by this number carries it
    std::vector<std::uint64_t> more = {}; ///< hostile values of this number alone
};

using Values = std::span<const std::uint64_t>;

/// The error of a call, or nothing if it succeeded (and was undone).
using Outcome = std::optional<Error>;

template <class T>
[[nodiscard]] Outcome outcome(const Result<T>& result) {
    return result ? Outcome() : Outcome(result.error());
}

/// The same, after the fixture's `reset()` if the call succeeded.
template <class Fixture, class T>
[[nodiscard]] Outcome reset_after(Fixture& fixture, const Result<T>& result) {
    if (result)
        fixture.reset();
    return outcome(result);
}

/// The outcome of a call that succeeded or cannot fail.
inline constexpr std::nullopt_t returned = std::nullopt;

/// One function. `call` gets a value for each argument, and undoes a call that succeeds. `state`
/// describes what a failed call must not change.
struct Row {
    std::string name;
    std::vector<Argument> arguments;
    std::function<Outcome(Values)> call;
    std::function<std::string()> state = [] { return std::string(); };
    bool good_succeeds = true; ///< the call with valid numbers
};

/// 8 GiB of zeros, which use memory only when written.
[[nodiscard]] std::span<std::byte> large_memory();

/// Whether the host decides if so much memory can be allocated; rows leave such sizes out.
[[nodiscard]] constexpr bool depends_on_host(std::uint64_t bytes) {
    return bytes > (1ULL << 26) && bytes < (1ULL << 47);
}

/// Makes the rows that share a fixture; called once in every child.
using MakeRows = std::function<std::vector<Row>()>;

/// Runs the rows; a call that breaks the contract fails the current test with one line.
void expect_contracts(const MakeRows& make_rows, std::uint64_t page = 4096);

/// As above, but Return: the lines. For the driver's own tests.
[[nodiscard]] std::vector<std::string> broken_contracts(const MakeRows& make_rows,
                                                        std::uint64_t page = 4096);

} // namespace moat::tests
