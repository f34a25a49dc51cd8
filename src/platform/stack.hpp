// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Call stacks of this process: captured as addresses, symbolised later. The DMA API's registry
// keeps them; fault/report.hpp prints them.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/stack_frame.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace moat::platform {

/// Writes the return addresses of the caller and its callers to `frames`, innermost first, without
/// the innermost `skip`. Uses the unwinder's tables, not frame pointers: about 100 ns per frame, no
/// allocation, no lock of its own. Any thread. Return: how many were written.
[[gnu::noinline]] std::size_t capture_stack(std::span<std::uintptr_t> frames, unsigned skip = 0);

/// Passes the frames at a return address of this process to `sink`, innermost first, with inlined
/// functions: at least one frame, whose views are valid during the call. Without debug information,
/// a frame has only the symbol or the module. The first call reads the debug information, which
/// allocates and is slow; libraries loaded later have no symbols. Any thread; calls `sink` under a
/// lock, so `sink` does not call this.
void symbolise(std::uintptr_t return_address, FunctionRef<void(const StackFrame&)> sink);

/// The same for another process's code: `address`, within the call, is the file's own, as it was
/// linked. `frame` has what is known already.
void symbolise_in_file(const std::string& path, std::uintptr_t address, const StackFrame& frame,
                       FunctionRef<void(const StackFrame&)> sink);

} // namespace moat::platform
