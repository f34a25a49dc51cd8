// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Lines broken between words, for a terminal. One stream buffer in front of a stream's own, so that
// whoever prints needs to know nothing of columns.
#pragma once

#include <cstddef>
#include <streambuf>
#include <string>
#include <string_view>

namespace moat::tools {

/// Of the terminal that `descriptor` is; 0 where it is none, 80 where the terminal has no size.
[[nodiscard]] std::size_t terminal_columns(int descriptor);

/// Columns that `text` takes: without colours, a character of UTF-8 for one.
[[nodiscard]] std::size_t width_of(std::string_view text);

/// `line`, which has no line break, as lines of at most `columns`. A word that is longer stays
/// whole. Each further line is indented as the first. A line of JSON is left as it is; a command
/// line stays one by backslashes.
[[nodiscard]] std::string wrapped(std::string_view line, std::size_t columns);

/// Wraps each line as it is completed; none for 0 columns. What a flush finds of an unfinished line
/// is written as it is.
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
