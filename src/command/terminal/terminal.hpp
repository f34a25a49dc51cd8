// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a terminal shows: colours, or none, one choice for the whole command (main.cpp parses
// --color); and lines broken between words, by a stream buffer, so that printing code can ignore
// columns.
#pragma once

#include "moat/fault/report.hpp"

#include <cstddef>
#include <cstdint>
#include <streambuf>
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

/// The columns of the terminal at `descriptor`; 0 without one, 80 if it reports no size.
[[nodiscard]] std::size_t terminal_columns(int descriptor);

/// The columns of `text`: one for each UTF-8 character, without colours.
[[nodiscard]] std::size_t width_of(std::string_view text);

/// Breaks `line`, which has no line break, into lines of at most `columns`, indented as the first.
/// A longer word stays whole. JSON stays unchanged; parts of a command line end with
/// backslashes.
[[nodiscard]] std::string wrapped(std::string_view line, std::size_t columns);

/// Wraps each completed line, unless there are 0 columns. A flush writes an incomplete line
/// unchanged.
class WrappingBuffer final : public std::streambuf {
  public:
    WrappingBuffer(std::streambuf& inner, std::size_t columns) : inner_(inner), columns_(columns) {}

    [[nodiscard]] std::streambuf& inner() { return inner_; }

    /// The errno of the first write that failed, or 0.
    [[nodiscard]] int error() const { return error_; }

  protected:
    int_type overflow(int_type c) override;
    std::streamsize xsputn(const char* text, std::streamsize size) override;
    int sync() override;

  private:
    [[nodiscard]] bool add(char c);
    [[nodiscard]] bool write(std::string_view text);
    [[nodiscard]] bool note(bool succeeded);

    std::streambuf& inner_;
    std::size_t columns_;
    std::string line_;
    int error_ = 0;
    bool is_begun_ = false; ///< a flush has written the beginning of this line
};

} // namespace moat::tools
