// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Copies from and to the program's memory, which may not be there: they end at the first byte that
// faults. The handler of faults (faults.cpp) calls end_guarded_copy.
#pragma once

#include <cstddef>
#include <ucontext.h>

namespace moat::run {

/// Copies while this thread's faults are caught. Return: how many bytes were copied, fewer if one
/// of the next cannot be accessed.
[[nodiscard]] std::size_t guarded_copy(void* to, const void* from, std::size_t bytes);

/// Copies 8 bytes with one load and one store. Return: whether they could be accessed.
[[nodiscard]] bool guarded_copy_8(void* to, const void* from);

/// Ends the copy that faulted. Return: false if the fault is of another instruction.
/// Async-signal-safe.
[[nodiscard]] bool end_guarded_copy(ucontext_t& context);

} // namespace moat::run
