// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the terminal wants: colour on standard output, or none. One choice for the whole command;
// subcommands ask for colours, main.cpp takes --color.
#pragma once

#include "moat/fault/report.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace moat::tools {

enum class ColourChoice : std::uint8_t {
    automatic, ///< on a terminal that can, where NO_COLOR is not set or is empty
    always,
    never,
};

/// Before anything is printed, and once.
void choose_colour(ColourChoice choice);

/// Whether standard output gets colours.
[[nodiscard]] fault::Colour output_colour();

enum class Tone : std::uint8_t { bad, good, strong };

/// `text` as standard output shows it; itself, where there are no colours.
[[nodiscard]] std::string toned(Tone tone, std::string_view text);

} // namespace moat::tools
