// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stack switch: what runs on one stack stops, what had stopped on another goes on.
// No scheduling, no memory: stacks belong to the arena. Only explore/machine.hpp calls it.
#pragma once

#include <cstddef>

namespace moat::explore {

/// Where a stopped fiber's stack ends; everything else it needs lies on that stack, so a copy of
/// the bytes from here to the stack's top is a copy of the fiber.
using StackPointer = void*;

extern "C" {

/// Saves the caller at `*save` and goes on where `to` was saved. Callee-saved registers travel on
/// the stack; the floating-point control words and the signal mask do not change hands.
void moat_explore_switch(StackPointer* save, StackPointer to);
}

/// A fiber that begins in `entry`, which must not return, on the stack that ends (exclusive) at
/// `top`, a multiple of 16.
[[nodiscard]] StackPointer make_fiber(std::byte* top, void (*entry)());

} // namespace moat::explore
