// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FiberSwitch: switches between the machine's own stack and those of the fibers, and announces the
// switches to sanitizers. The caller decides which fiber runs next.
#pragma once

#include "moat/core/check.hpp"

#include "lab/explore/arena.hpp"
#include "lab/explore/fiber.hpp"

#include <array>
#include <cstddef>

namespace moat::explore {

class FiberSwitch {
  public:
    explicit FiberSwitch(const Arena& arena) : arena_(arena) {}

    ~FiberSwitch() {
        for (SanitizerFiber& fiber : sanitizers_)
            fiber.end();
    }

    FiberSwitch(const FiberSwitch&) = delete;
    FiberSwitch& operator=(const FiberSwitch&) = delete;

    /// A fresh fiber that begins in `entry`; `most_fibers` is that of the final check.
    [[nodiscard]] StackPointer make(Actor fiber, void (*entry)()) {
        std::byte* const top = arena_.stack_top(fiber);
        sanitizers_[fiber].begin(top - Arena::stack_bytes, Arena::stack_bytes);
        return make_fiber(top, entry);
    }

    /// From the machine's stack; returns when a fiber calls `leave`.
    void enter(Actor fiber, StackPointer stack) {
        machine_sanitizer_.begin_here();
        sanitizers_[fiber].enter();
        moat_explore_switch(&machine_, stack);
    }

    /// To the machine's stack; returns when the fiber is entered again.
    [[gnu::always_inline]] void leave(StackPointer& own) {
        machine_sanitizer_.enter();
        moat_explore_switch(&own, machine_);
    }

    /// From one fiber to another.
    [[gnu::always_inline]] void pass(StackPointer& own, Actor fiber, StackPointer stack) {
        sanitizers_[fiber].enter();
        moat_explore_switch(&own, stack);
    }

    void check_room(Actor fiber, const void* pointer) const {
        constexpr std::ptrdiff_t least_left = 4096;
        const std::byte* const bottom = arena_.stack_top(fiber) - Arena::stack_bytes;
        MOAT_CHECK(static_cast<const std::byte*>(pointer) - bottom > least_left,
                   "an explored thread fits its stack");
    }

  private:
    const Arena& arena_;
    StackPointer machine_ = nullptr;
    SanitizerFiber machine_sanitizer_;
    std::array<SanitizerFiber, most_fibers + 1> sanitizers_{};
};

} // namespace moat::explore
