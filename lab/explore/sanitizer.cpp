// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Announces stack switches to the sanitizers; empty in other builds.
#include "lab/explore/fiber.hpp"

#if defined(MOAT_EXPLORE_ASAN)
#include <sanitizer/asan_interface.h>

namespace moat::explore {

void SanitizerFiber::begin(std::byte* stack, std::size_t size) {
    __asan_unpoison_memory_region(stack, size);
}

} // namespace moat::explore

#elif defined(MOAT_EXPLORE_TSAN)
#include <sanitizer/tsan_interface.h>

namespace moat::explore {

void SanitizerFiber::begin(std::byte*, std::size_t) {
    end();
    handle_ = __tsan_create_fiber(0);
}

void SanitizerFiber::begin_here() {
    handle_ = __tsan_get_current_fiber();
}

void SanitizerFiber::end() {
    if (handle_ != nullptr)
        __tsan_destroy_fiber(handle_);
    handle_ = nullptr;
}

} // namespace moat::explore

#endif
