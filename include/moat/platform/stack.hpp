// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Call stacks of this process: taken as addresses, cheaply, and turned into words later.
// Who keeps them is the DMA API's registry; who prints them, fault/report.hpp.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/stack_frame.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace moat::platform {

/// Writes the return addresses of the caller and of its callers into `frames`, innermost first,
/// without the innermost `skip` of them. Allocates nothing and takes no lock of ours; some 100 ns a
/// frame, by the unwinder's tables, so it needs no frame pointers. Any thread.
/// Return: how many were written.
[[gnu::noinline]] std::size_t capture_stack(std::span<std::uintptr_t> frames, unsigned skip = 0);

/// Words for return addresses of this process, by its debug information (elfutils' libdw), with
/// the functions that were inlined. Without debug information: the symbol, or the module alone.
/// Not thread-safe. What was loaded after the first question is looked up when first met.
class Symboliser {
  public:
    Symboliser();
    ~Symboliser();
    Symboliser(const Symboliser&) = delete;
    Symboliser& operator=(const Symboliser&) = delete;

    /// Hands out at least one frame, innermost first; its views die with the call of `sink`.
    void operator()(std::uintptr_t return_address, FunctionRef<void(const StackFrame&)> sink);

  private:
    class Session;
    std::unique_ptr<Session> session_;
};

} // namespace moat::platform
