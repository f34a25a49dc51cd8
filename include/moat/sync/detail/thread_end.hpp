// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Runs a function when the calling thread ends. Unlike a thread_local object, it also works when
// registered by the destructor of another thread_local object. Only epoch.hpp and thread_slots.hpp
// use it.
#pragma once

#include "moat/core/check.hpp"

#include <cxxabi.h>

namespace moat {

/// `function` runs once; the last one registered runs first. Source: the Itanium C++ ABI, by which
/// compilers register the destructors of thread_local objects.
inline void at_thread_end(void (*function)(void*), void* argument = nullptr) {
    // The address inside a shared library keeps it loaded until then.
    void* const library = reinterpret_cast<void*>(function);
    const int status = abi::__cxa_thread_atexit(function, argument, library);
    MOAT_CHECK(status == 0, "there is memory for what runs when a thread ends");
}

} // namespace moat
