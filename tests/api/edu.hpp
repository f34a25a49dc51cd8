// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver of QEMU's edu device, written against moat.hpp. Source: QEMU, docs/specs/edu.rst.
#pragma once

#include "moat/moat.hpp"

#include <chrono>
#include <utility>

namespace moat::tests {

class Edu {
  public:
    explicit Edu(Bar bar) : bar_(std::move(bar)) {}

    [[nodiscard]] bool is_there() const { return (bar_.read32(0).value() & 0xff) == 0xed; }

    /// The device writes `bytes` of its buffer, at most 4095, to `to`. Return: whether it ended.
    [[nodiscard]] bool write_memory(std::uint64_t to, std::uint64_t bytes) const {
        start(to, bytes);
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        while ((bar_.read64(0x98).value() & 1) != 0)
            if (std::chrono::steady_clock::now() > end)
                return false;
        return true;
    }

    /// The same, without a wait.
    void start(std::uint64_t to, std::uint64_t bytes) const {
        bar_.write64(0x80, 0x40000).value();
        bar_.write64(0x88, to).value();
        bar_.write64(0x90, bytes).value();
        bar_.write64(0x98, 1 | 2).value();
    }

  private:
    Bar bar_;
};

} // namespace moat::tests
