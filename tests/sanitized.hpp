// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Which sanitizer a build has. Under one, what is repeated is repeated less often.
#pragma once

#ifndef __has_feature
#define __has_feature(name) 0 // g++ 12 has macros instead
#endif

namespace moat::tests {

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
inline constexpr bool address_sanitized = true;
#else
inline constexpr bool address_sanitized = false;
#endif

#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
inline constexpr bool thread_sanitized = true;
#else
inline constexpr bool thread_sanitized = false;
#endif

inline constexpr bool sanitized = address_sanitized || thread_sanitized;

} // namespace moat::tests
