// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One symbolised frame of a call stack. platform/stack.hpp captures and symbolises stacks.
#pragma once

#include <cstdint>
#include <string_view>

namespace moat {

/// The views are valid only inside the callback that received the frame. Unknown fields are empty
/// or 0.
struct StackFrame {
    std::uintptr_t address = 0;
    std::string_view function = {};
    std::string_view file = {};
    unsigned line = 0;
    /// The program or library that contains the address.
    std::string_view module = {};
};

} // namespace moat
