// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Shortens the symbols of platform/stack.hpp.
#include "command/symbols.hpp"

#include "moat/core/text.hpp"

#include "platform/stack.hpp"

#include <string_view>

namespace moat::tools {

namespace {

/// Removes parameter lists, which are long and help little.
[[nodiscard]] std::string without_parameters(std::string_view name) {
    std::string text;
    int depth = 0;
    for (std::size_t at = 0; at != name.size(); ++at) {
        const bool is_part_of_a_name = name.substr(at).starts_with("(anonymous namespace)") ||
                                       (text.ends_with("operator") && name[at] == '(');
        if (depth == 0 && is_part_of_a_name) {
            const std::size_t end = name.find(')', at);
            text += name.substr(at, end + 1 - at);
            at = end;
            continue;
        }
        depth += name[at] == '(' ? 1 : 0;
        if (depth == 0)
            text += name[at];
        depth -= name[at] == ')' ? 1 : 0;
    }
    return text;
}

/// The build makes source paths relative to the project's folder; a compiler's cache may make them
/// relative to the compiler's folder.
[[nodiscard]] std::string_view within_project(std::string_view file) {
    const std::size_t up = file.rfind("./");
    return up == std::string_view::npos ? file : file.substr(up + 2);
}

} // namespace

std::vector<std::string> symbolise(std::uintptr_t return_address) {
    std::vector<std::string> found;
    const auto add = [&](const StackFrame& frame) {
        std::string text = frame.function.empty() ? hexadecimal(frame.address)
                                                  : without_parameters(frame.function);
        if (!frame.file.empty() && frame.line != 0) // 0: of several places
            text.append(" at ")
                .append(within_project(frame.file))
                .append(":")
                .append(std::to_string(frame.line));
        found.push_back(std::move(text));
    };
    platform::symbolise(return_address, add);
    return found;
}

} // namespace moat::tools
