// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The functions that the preloaded library interposes, as the next library has them.
#pragma once

#include <atomic>
#include <cstdarg>
#include <dlfcn.h>

// A definition that takes the place of libc's.
#define MOAT_INTERPOSED extern "C" [[gnu::visibility("default")]]

// Another name of libc's for `function`, which the same file defines. off64_t is off_t.
#define MOAT_ALIAS(name, function)                                                                 \
    extern "C" [[gnu::visibility("default"), gnu::alias(#function)]] decltype(name) name

namespace moat::run {

[[nodiscard]] inline void* find_next(std::atomic<void*>& known, const char* name) {
    void* function = known.load(std::memory_order_relaxed);
    if (function == nullptr) {
        function = dlsym(RTLD_NEXT, name);
        known.store(function, std::memory_order_relaxed);
    }
    return function;
}

} // namespace moat::run

/// The next definition of `function`, which has a declaration.
#define MOAT_NEXT(function)                                                                        \
    ([] {                                                                                          \
        static constinit std::atomic<void*> next_one = nullptr;                                    \
        return reinterpret_cast<decltype(&::function)>(                                            \
            ::moat::run::find_next(next_one, #function));                                          \
    }())

// NOLINTBEGIN(bugprone-macro-parentheses): a type has none
/// Declares `name` as the argument after `last`, which the caller may have left out.
#define MOAT_LAST_ARGUMENT(type, name, last)                                                       \
    std::va_list name##_list;                                                                      \
    va_start(name##_list, last);                                                                   \
    const auto name = va_arg(name##_list, type);                                                   \
    va_end(name##_list)
// NOLINTEND(bugprone-macro-parentheses)
