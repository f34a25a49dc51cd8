// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// NO_COLOR as in https://no-color.org; the option --color overrides it.
#include "command/terminal/terminal.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <sys/ioctl.h>
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

/// Whether the line is a command to copy, unlike "moat audit: ..." and a sentence.
[[nodiscard]] bool is_command(std::string_view line) {
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    return line.starts_with("moat ") && line.substr(0, line.find(' ', 5)).find(':') == line.npos &&
           !line.ends_with('.');
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

std::size_t terminal_columns(int descriptor) {
    if (::isatty(descriptor) == 0)
        return 0;
    winsize size{};
    const bool known = ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    return known ? size.ws_col : 80;
}

std::size_t width_of(std::string_view text) {
    std::size_t width = 0;
    for (std::size_t at = 0; at != text.size(); ++at) {
        if (text.substr(at).starts_with("\033["))
            at = std::min(text.find_first_of("mK", at), text.size() - 1);
        else if ((static_cast<unsigned char>(text[at]) & 0xc0) != 0x80)
            ++width;
    }
    return width;
}

std::string wrapped(std::string_view line, std::size_t columns) {
    if (width_of(line) <= columns || line.starts_with('{'))
        return std::string(line);
    const std::string_view end = is_command(line) ? " \\\n" : "\n";
    const std::size_t room = columns - std::min(columns, end.size() - 1);
    const std::size_t own_indent = std::min(line.find_first_not_of(' '), line.size());
    const std::size_t indent = std::min(own_indent < 4 ? own_indent + 2 : own_indent, columns / 2);
    std::string text;
    std::size_t used = 0;
    for (std::size_t at = 0; at != line.size();) {
        const std::size_t begin = std::min(line.find_first_not_of(' ', at), line.size());
        const std::size_t word_end = std::min(line.find(' ', begin), line.size());
        const std::string_view word = line.substr(begin, word_end - begin);
        if (word.empty())
            break;
        std::size_t spaces = begin - at;
        const std::size_t width = width_of(word);
        const bool fits = used + spaces + width <= room;
        if (at != 0 && !fits) {
            text += end;
            used = 0;
            spaces = indent;
        }
        if (used == 0) // at the cost of its indentation
            spaces = std::min(spaces, room - std::min(room, width));
        text.append(spaces, ' ').append(word);
        used += spaces + width;
        at = word_end;
    }
    return text;
}

WrappingBuffer::int_type WrappingBuffer::overflow(int_type c) {
    if (traits_type::eq_int_type(c, traits_type::eof()))
        return traits_type::not_eof(c);
    return add(traits_type::to_char_type(c)) ? c : traits_type::eof();
}

std::streamsize WrappingBuffer::xsputn(const char* text, std::streamsize size) {
    if (columns_ == 0)
        return write({text, static_cast<std::size_t>(size)}) ? size : 0;
    for (std::streamsize at = 0; at != size; ++at)
        if (!add(text[at]))
            return at;
    return size;
}

bool WrappingBuffer::write(std::string_view text) {
    const std::streamsize written =
        inner_.sputn(text.data(), static_cast<std::streamsize>(text.size()));
    return note(static_cast<std::size_t>(written) == text.size());
}

bool WrappingBuffer::note(bool succeeded) {
    if (!succeeded && error_ == 0)
        error_ = errno;
    return succeeded;
}

bool WrappingBuffer::add(char c) {
    if (columns_ == 0)
        return write({&c, 1});
    if (c != '\n') {
        line_ += c;
        return true;
    }
    const std::string text = is_begun_ ? line_ : wrapped(line_, columns_);
    line_.clear();
    is_begun_ = false;
    return write(text + '\n');
}

int WrappingBuffer::sync() {
    const bool done = line_.empty() || write(line_);
    // A carriage return starts the line again.
    is_begun_ = (is_begun_ || !line_.empty()) && !line_.ends_with("\r\033[K");
    line_.clear();
    return done && note(inner_.pubsync() == 0) ? 0 : -1;
}

} // namespace moat::tools
