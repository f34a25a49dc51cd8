// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stack switch: suspends the code on one stack, resumes the code on another.
// No scheduling, no memory: stacks belong to the arena. Only explore/machine.hpp calls it.
#pragma once

#include <cstddef>

namespace moat::explore {

/// Where a stopped fiber's stack ends; everything else it needs lies on that stack, so a copy of
/// the bytes from here to the stack's top is a copy of the fiber.
using StackPointer = void*;

extern "C" {

/// Saves the caller at `*save` and continues where `to` was saved. Callee-saved registers travel on
/// the stack; the floating-point control words and the signal mask are not switched.
void moat_explore_switch(StackPointer* save, StackPointer to);
}

/// A fiber that begins in `entry`, which must not return, on the stack that ends (exclusive) at
/// `top`, a multiple of 16.
[[nodiscard]] StackPointer make_fiber(std::byte* top, void (*entry)());

/// Announces stack switches to sanitizers: to AddressSanitizer a stack that begins anew, to
/// ThreadSanitizer the stack that runs. Empty, and free, in every other build.
class SanitizerFiber {
  public:
    /// A new fiber on the `size` bytes at `stack`; forgets the one before.
    void begin(std::byte* stack, std::size_t size);
    /// The stack that runs now.
    void begin_here();
    /// Call it immediately before the switch to this fiber.
    void enter() const;
    void end();

  private:
    [[maybe_unused]] void* handle_ = nullptr;
};

} // namespace moat::explore

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MOAT_EXPLORE_TSAN
#elif __has_feature(address_sanitizer)
#define MOAT_EXPLORE_ASAN
#endif
#elif defined(__SANITIZE_THREAD__)
#define MOAT_EXPLORE_TSAN
#elif defined(__SANITIZE_ADDRESS__)
#define MOAT_EXPLORE_ASAN
#endif

#if defined(MOAT_EXPLORE_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace moat::explore {

#if defined(MOAT_EXPLORE_TSAN)
/// Inlined, since a function that is entered on one stack must be left on the same.
[[gnu::always_inline]] inline void SanitizerFiber::enter() const {
    constexpr unsigned orders_what_follows = 0;
    __tsan_switch_to_fiber(handle_, orders_what_follows);
}
#else
inline void SanitizerFiber::begin_here() {}

inline void SanitizerFiber::enter() const {}

inline void SanitizerFiber::end() {}
#if !defined(MOAT_EXPLORE_ASAN)
inline void SanitizerFiber::begin(std::byte*, std::size_t) {}
#endif
#endif

} // namespace moat::explore
