// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Pieces of text put together; g++ 12 warns falsely of literals put in front of strings (bug
// 105651). Used where the explorer prints.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace moat::explore {

[[nodiscard]] inline std::string joined(std::initializer_list<std::string_view> pieces) {
    std::string text;
    for (std::string_view piece : pieces)
        text.append(piece);
    return text;
}

} // namespace moat::explore
