// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Symbols of another process's code, from the files that it has mapped.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/stack_frame.hpp"

#include <cstdint>
#include <sys/types.h>

namespace moat::run {

/// Passes the frames at a return address of `process` to `sink`: at least one, whose views are
/// valid during the call. Any thread.
void symbolise_in(pid_t process, std::uintptr_t return_address,
                  FunctionRef<void(const StackFrame&)> sink);

} // namespace moat::run
