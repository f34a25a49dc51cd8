// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The registers in a signal's context, to and from the form that emulate works on.
#pragma once

#include "run/instruction/instruction.hpp"

#include <ucontext.h>

namespace moat::run {

/// The registers of the interrupted instruction. Async-signal-safe after the first call.
[[nodiscard]] Registers registers_of(const ucontext_t& context);

/// Writes the general registers, the flags, the instruction pointer, and the vector register that
/// `step` names.
void set_registers(ucontext_t& context, const Registers& registers, const Step& step);

} // namespace moat::run
