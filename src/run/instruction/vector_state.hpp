// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VectorState: the vector registers in an XSAVE image, as a signal's frame and ptrace have it.
// Source: Intel SDM volume 1, chapter 13 (XSAVE); Linux, arch/x86/include/uapi/asm/sigcontext.h.
#pragma once

#include "run/instruction/instruction.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::run {

/// Async-signal-safe after the first call. The image outlives it.
class VectorState {
  public:
    /// `image` is what a frame's fpregs points at; nullptr: no registers.
    [[nodiscard]] static VectorState of_signal(std::byte* image);
    /// `image` is a regset NT_X86_XSTATE.
    [[nodiscard]] static VectorState of_ptrace(std::span<std::byte> image);

    void read(std::span<Registers::Vector> into) const;
    void write(unsigned number, const Registers::Vector& value);

  private:
    explicit VectorState(std::byte* image) : image_(image) {}

    template <class Function>
    void for_each_slice(Function function) const;

    std::byte* image_;
    std::uint64_t supported_ = 0b10; ///< without XSAVE: XMM, in the image
    std::uint64_t present_ = 0b10;
};

} // namespace moat::run
