// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Colour on standard output, or none. One choice for the whole command;
// subcommands use colours, main.cpp parses --color.
#pragma once

#include "moat/fault/report.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace moat::tools {

/// `choice` is "auto" (on a capable terminal, if NO_COLOR is unset or empty), "always" or "never".
/// Call it before any output.
void choose_colour(std::string_view choice);

/// Whether output to standard output has colours.
[[nodiscard]] fault::Colour output_colour();

enum class Tone : std::uint8_t { bad, good, strong };

/// `text` in a colour, or unchanged without colours.
[[nodiscard]] std::string toned(Tone tone, std::string_view text);

} // namespace moat::tools
