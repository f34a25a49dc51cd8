// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// NO_COLOR as in https://no-color.org; the option --color overrides it.
#include "terminal.hpp"

#include <cstdlib>
#include <unistd.h>

namespace moat::tools {

namespace {

fault::Colour chosen = fault::Colour::none;

[[nodiscard]] bool terminal_has_colours() {
    const char* const no_color = std::getenv("NO_COLOR");
    const char* const kind = std::getenv("TERM");
    return (no_color == nullptr || *no_color == '\0') && kind != nullptr &&
           std::string_view(kind) != "dumb" && ::isatty(STDOUT_FILENO) != 0;
}

} // namespace

void choose_colour(std::string_view choice) {
    const bool wanted = choice == "always" || (choice == "auto" && terminal_has_colours());
    chosen = wanted ? fault::Colour::ansi : fault::Colour::none;
}

fault::Colour output_colour() {
    return chosen;
}

std::string toned(Tone tone, std::string_view text) {
    if (chosen == fault::Colour::none)
        return std::string(text);
    constexpr std::string_view codes[] = {"\033[1;31m", "\033[32m", "\033[1m"};
    return std::string(codes[static_cast<std::size_t>(tone)]) + std::string(text) + "\033[0m";
}

} // namespace moat::tools
