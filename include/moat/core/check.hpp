// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MOAT_CHECK: an assertion for programmer errors, also in production. Expected failures return a
// Result (core/result.hpp).
#pragma once

#if __STDC_HOSTED__
#include <atomic>
#include <cstdio>
#include <cstdlib>
#else
/// Reports and does not return. An embedder without a C library defines it.
extern "C" [[noreturn]] void moat_check_failed(const char* condition, const char* message,
                                               const char* file, int line);
#endif

namespace moat::detail {

#if __STDC_HOSTED__
/// Called before the program ends. It may switch to another stack, as the explorer does to report
/// the schedule; if it returns, the program ends. Only the explorer sets it.
using CheckHandler = void (*)(const char* condition, const char* message, const char* file,
                              int line);
inline constinit std::atomic<CheckHandler> check_handler{nullptr};
#endif

[[noreturn, gnu::cold, gnu::noinline]] inline void
check_failed(const char* condition, const char* message, const char* file, int line) {
#if __STDC_HOSTED__
    if (const CheckHandler handler = check_handler.load(std::memory_order_relaxed))
        handler(condition, message, file, line);
    std::fprintf(stderr, "moat: CHECK failed: %s\n  %s\n  at %s:%d\n", message, condition, file,
                 line);
    std::abort();
#else
    moat_check_failed(condition, message, file, line);
#endif
}

} // namespace moat::detail

/// Ends the program with `message` when `condition` is false, in every build.
#define MOAT_CHECK(condition, message)                                                             \
    do {                                                                                           \
        if (!(condition)) [[unlikely]]                                                             \
            ::moat::detail::check_failed(#condition, message, __FILE__, __LINE__);                 \
    } while (false)
