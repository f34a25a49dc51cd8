// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Call stacks of both sides of a violation, collected while its schedule runs once
// more, so that the search pays nothing. The caller provides symbols for addresses.
#pragma once

#include "lab/explore/machine.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace moat::explore {

/// Return addresses, the innermost first.
using Stack = std::vector<std::uintptr_t>;

/// Writes the return addresses of the present stack into `frames`, the innermost first, without the
/// innermost `skip`. Return: their number. platform::capture_stack is one.
using CaptureStack = std::size_t (*)(std::span<std::uintptr_t> frames, unsigned skip);

/// Pass it to `Machine::observe` before the machine starts.
class StackRecorder final : public Observer {
  public:
    explicit StackRecorder(CaptureStack capture) : capture_(capture) {}

    void announces(Actor actor) override;
    void accesses_plain(Actor actor) override;
    void allocates(Actor actor, std::uint32_t begin, std::size_t size) override;
    void fails(Actor actor) override;

    /// Of an operation of `actor`, by its number among the actor's operations; empty: none.
    [[nodiscard]] Stack of_operation(Actor actor, std::size_t number) const;
    /// By its number among `Machine::plain_accesses`.
    [[nodiscard]] Stack of_plain_access(std::size_t number) const;
    /// The stack at which `actor` ended the execution; empty if it did not.
    [[nodiscard]] Stack of_failure(Actor actor) const;

    struct Allocation {
        Actor actor = nobody;
        std::size_t size = 0;
        Stack stack;
    };

    /// The allocation of the byte at offset `location`, or nullptr.
    [[nodiscard]] const Allocation* allocation_of(std::uint32_t location) const;

  private:
    [[nodiscard]] Stack stack_here() const;

    CaptureStack capture_;
    std::array<std::vector<Stack>, most_actors + 1> operations_;
    std::vector<Stack> plain_;
    std::array<Stack, most_actors + 1> failures_;
    std::map<std::uint32_t, Allocation> allocations_;
};

/// The functions at a return address, the innermost of those that are inlined into one another
/// first: "walk at lab/scenarios/pud_slot.hpp:119".
using Symbolise = std::function<std::vector<std::string>(std::uintptr_t return_address)>;

/// The stacks of the violation of `machine`, each under a line that names its actor: of the access,
/// the free and the allocation, of both accesses, or of all waiting threads. Without frames of
/// the explorer itself. Empty without a violation.
[[nodiscard]] std::string stacks_text(const Machine& machine, const StackRecorder& stacks,
                                      const Symbolise& symbolise);

} // namespace moat::explore
