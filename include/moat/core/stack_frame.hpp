// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One line of a call stack in words, as whoever knows symbols hands it to whoever prints it.
// How a stack is taken, and what turns addresses into words, is not here (platform/stack.hpp).
#pragma once

#include <cstdint>
#include <string_view>

namespace moat {

/// Views are valid only while the callback that received the frame runs. What is not known is
/// empty, or 0.
struct StackFrame {
    std::uintptr_t address = 0;
    std::string_view function = {};
    std::string_view file = {};
    unsigned line = 0;
    /// The program or library that holds the address.
    std::string_view module = {};
};

} // namespace moat
