// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// By libbacktrace, which g++ brings along; without it addresses stay numbers.
#include "symbols.hpp"

#include "moat/core/text.hpp"

#if defined(MOAT_BACKTRACE)
#include <backtrace.h>
#include <cstdlib>
#include <cxxabi.h>
#include <string_view>
#endif

namespace moat::tools {

#if defined(MOAT_BACKTRACE)

namespace {

void ignore(void*, const char*, int) {}

/// Without lists of parameters, which say little and are long.
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

[[nodiscard]] std::string demangled(const char* name) {
    int status = 0;
    char* const text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
    const std::string result = without_parameters(text == nullptr ? name : text);
    std::free(text);
    return result;
}

/// The build says where sources lie from the project's own folder; the compiler may say so in
/// relation to where it ran.
[[nodiscard]] std::string_view within_project(std::string_view file) {
    const std::size_t up = file.rfind("../");
    return up == std::string_view::npos ? file : file.substr(up + 3);
}

} // namespace

std::vector<std::string> symbolise(std::uintptr_t address) {
    static backtrace_state* const state = backtrace_create_state(nullptr, 0, &ignore, nullptr);
    std::vector<std::string> found;
    backtrace_pcinfo(
        state, address,
        [](void* to, std::uintptr_t, const char* file, int line, const char* function) {
            if (function == nullptr)
                return 0;
            std::string text = demangled(function);
            if (file != nullptr && line != 0) // 0: of several places
                text.append(" at ")
                    .append(within_project(file))
                    .append(":")
                    .append(std::to_string(line));
            static_cast<std::vector<std::string>*>(to)->push_back(std::move(text));
            return 0;
        },
        &ignore, &found);
    if (!found.empty())
        return found;
    backtrace_syminfo(
        state, address,
        [](void* to, std::uintptr_t, const char* symbol, std::uintptr_t, std::uintptr_t) {
            if (symbol != nullptr)
                static_cast<std::vector<std::string>*>(to)->push_back(demangled(symbol));
        },
        &ignore, &found);
    if (found.empty())
        found.push_back(hexadecimal(address));
    return found;
}

#else

std::vector<std::string> symbolise(std::uintptr_t address) {
    return {hexadecimal(address)};
}

#endif

} // namespace moat::tools
