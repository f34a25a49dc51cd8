// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Call stacks of this process: taken as addresses, cheaply, and turned into words later.
// Who keeps them is the DMA API's registry; who prints them, fault/report.hpp.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/stack_frame.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::platform {

/// Writes the return addresses of the caller and of its callers into `frames`, innermost first,
/// without the innermost `skip` of them. Allocates nothing and takes no lock of ours; some 100 ns a
/// frame, by the unwinder's tables, so it needs no frame pointers. Any thread.
/// Return: how many were written.
[[gnu::noinline]] std::size_t capture_stack(std::span<std::uintptr_t> frames, unsigned skip = 0);

/// Words for a return address of this process, by its debug information, with the functions that
/// were inlined: hands out at least one frame, innermost first, whose views die with the call of
/// `sink`. Without debug information: the symbol, or the module alone. Reads the debug information
/// at the first call, which allocates and takes a while; libraries loaded later stay addresses. Any
/// thread, one at a time: `sink` is called under a lock and does not symbolise.
void symbolise(std::uintptr_t return_address, FunctionRef<void(const StackFrame&)> sink);

} // namespace moat::platform
