// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// All memory of an explored program: a heap that only grows within an execution, and the stacks.
// No reuse of freed memory, so that a use after free is seen. Owned by explore/machine.hpp.
#pragma once

#include "moat/core/check.hpp"

#include "lab/explore/actor.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace moat::explore {

class Arena {
  public:
    static constexpr std::size_t alignment = 4096;
    static constexpr std::size_t heap_bytes = std::size_t{1} << 20;
    static constexpr std::size_t stack_bytes = std::size_t{1} << 16;
    /// One more for the final check.
    static constexpr std::size_t bytes = heap_bytes + (most_fibers + 1) * stack_bytes;
    /// Offset 0 is `nowhere`.
    static constexpr std::size_t first_byte = 64;

    /// Writes to no page: most are never used.
    Arena() : base_(new(std::align_val_t(alignment)) std::byte[bytes]) {}

    [[nodiscard]] std::byte* base() const { return base_.get(); }

    /// One past the last byte of the stack of `fiber`; `most_fibers` for the final check.
    [[nodiscard]] std::byte* stack_top(Actor fiber) const {
        return base() + heap_bytes + (fiber + 1) * stack_bytes;
    }

    /// Zeroed memory; nullptr when the heap is used up. `align` is a power of two.
    [[nodiscard]] void* allocate(std::size_t size, std::size_t align) {
        const std::size_t begin = (used_ + align - 1) & ~(align - 1);
        if (begin > heap_bytes || size > heap_bytes - begin)
            return nullptr;
        std::memset(base() + used_, 0, begin + size - used_);
        used_ = begin + size;
        return base() + begin;
    }

    /// Offset of the first free byte.
    [[nodiscard]] std::size_t used() const { return used_; }

    /// Frees the allocations from offset `used` on.
    void shrink(std::size_t used) { used_ = used; }

    [[nodiscard]] bool contains(const void* address) const {
        return static_cast<std::size_t>(static_cast<const std::byte*>(address) - base()) < bytes;
    }

    [[nodiscard]] std::uint32_t offset_of(const void* address) const {
        return static_cast<std::uint32_t>(static_cast<const std::byte*>(address) - base());
    }

  private:
    struct Free {
        void operator()(std::byte* base) const {
            ::operator delete[](base, std::align_val_t(alignment));
        }
    };

    std::unique_ptr<std::byte, Free> base_;
    std::size_t used_ = first_byte;
};

} // namespace moat::explore
