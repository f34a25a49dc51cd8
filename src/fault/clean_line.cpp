// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Colours: ECMA-48, control sequences. Archived mail: RFC 2045, 6.7 Quoted-Printable. /dev/kmsg:
// Linux, Documentation/ABI/testing/dev-kmsg.
#include "clean_line.hpp"

#include "text_cursor.hpp"

#include <algorithm>
#include <utility>

namespace moat::fault {

namespace {

/// Bytes of UTF-8 that word processors and web pages put in the place of ASCII.
constexpr std::array<std::pair<std::string_view, char>, 19> typography = {{
    {"=3D", '='},           {"=C2=A0", ' '},       {"\xc2\xa0", ' '},     {"\xe2\x80\x98", '\''},
    {"\xe2\x80\x99", '\''}, {"\xe2\x80\x9c", '"'}, {"\xe2\x80\x9d", '"'}, {"\xe2\x80\x90", '-'},
    {"\xe2\x80\x93", '-'},  {"\xe2\x80\x94", '-'}, {"<br>", ' '},         {"<br/>", ' '},
    {"<br />", ' '},        {"<code>", ' '},       {"</code>", ' '},      {"&quot;", '"'},
    {"&gt;", '>'},          {"&lt;", '<'},         {"&#39;", '\''},
}};

/// The length of a control sequence at the start of `text`, or 0.
[[nodiscard]] std::size_t control_sequence(std::string_view text) {
    std::size_t at = 0;
    if (text.starts_with("\x1b["))
        at = 2;
    else if (text.starts_with("^[["))
        at = 3;
    else if (text.starts_with("#033["))
        at = 5;
    else
        return 0;
    const std::size_t most = std::min(text.size(), at + 16);
    while (at < most &&
           (text[at] == ';' || text[at] == '?' || (text[at] >= '0' && text[at] <= '9')))
        ++at;
    return at < most ? at + 1 : 0;
}

/// Quote marks, and the marks of a list, a table or a comment.
[[nodiscard]] bool is_decorated(std::string_view line) {
    constexpr std::string_view before_blank = "#*+-";
    return line.starts_with('>') || line.starts_with('|') || line.starts_with(' ') ||
           (line.size() > 1 && line[1] == ' ' && before_blank.contains(line[0]));
}

[[nodiscard]] std::string without_decoration(std::string_view line) {
    while (is_decorated(line))
        line.remove_prefix(1);
    std::string text;
    text.reserve(line.size());
    while (!line.empty()) {
        std::size_t length = control_sequence(line);
        constexpr std::string_view first_bytes = "\xc2\xe2=<&";
        if (length == 0 && first_bytes.contains(line.front()))
            for (const auto& [bytes, plain] : typography)
                if (line.starts_with(bytes)) {
                    text += plain;
                    length = bytes.size();
                    break;
                }
        if (length == 0) {
            if (line.front() != '\r')
                text += line.front() == '\0' ? ' ' : line.front();
            length = 1;
        }
        line.remove_prefix(length);
    }
    return text;
}

[[nodiscard]] constexpr bool is_word_character(char each) {
    return (each >= 'a' && each <= 'z') || (each >= 'A' && each <= 'Z') ||
           (each >= '0' && each <= '9');
}

[[nodiscard]] bool is_plain(std::string_view line) {
    if (line.empty() || is_decorated(line))
        return false;
    return std::ranges::none_of(line,
                                [](char each) {
                                    return static_cast<signed char>(each) < ' ' || each == '&' ||
                                           each == '^' || each == '#' || each == '<';
                                }) &&
           line.find("=3D") == line.npos && line.find("=C2=A0") == line.npos;
}

[[nodiscard]] std::optional<std::uint64_t> monotonic(std::string_view head) {
    TextCursor kmsg(head);
    if (kmsg.decimal<std::uint32_t>() && kmsg.accept(",") && kmsg.decimal() && kmsg.accept(",")) {
        const auto microseconds = kmsg.decimal();
        if (microseconds && *microseconds < ~std::uint64_t{0} / 1000 && kmsg.accept(","))
            return *microseconds * 1000;
    }
    TextCursor cursor(head);
    for (unsigned tries = 0; tries != 4 && cursor.find("["); ++tries) {
        TextCursor inside = cursor;
        while (inside.accept(" ")) {
        }
        const auto seconds = inside.decimal<std::uint32_t>();
        if (!seconds || !inside.accept("."))
            continue;
        const std::size_t digits = inside.rest().find_first_not_of("0123456789");
        const auto microseconds = inside.decimal<std::uint32_t>();
        if (microseconds && digits == 6 && (inside.accept("]") || inside.accept("@")))
            return *seconds * std::uint64_t{1'000'000'000} + *microseconds * std::uint64_t{1000};
    }
    return std::nullopt;
}

[[nodiscard]] std::optional<std::uint32_t> second_of_day(std::string_view head) {
    std::optional<std::uint32_t> found;
    for (std::size_t at = head.find(':'); at != head.npos; at = head.find(':', at + 1)) {
        if (at < 2 || at + 6 > head.size() || head[at + 3] != ':')
            continue;
        TextCursor cursor(head.substr(at - 2));
        const auto hours = cursor.decimal<std::uint8_t>();
        const auto minutes = cursor.accept(":") ? cursor.decimal<std::uint8_t>() : std::nullopt;
        const auto seconds = cursor.accept(":") ? cursor.decimal<std::uint8_t>() : std::nullopt;
        if (hours && minutes && seconds && *hours < 24 && *minutes < 60 && *seconds < 61)
            found = *hours * 3600U + *minutes * 60U + *seconds;
    }
    return found;
}

} // namespace

CleanLine::CleanLine(std::string_view line) {
    text_ = is_plain(line) ? std::string(line) : without_decoration(line);
    finish();
}

CleanLine CleanLine::of_clean(std::string text) {
    CleanLine line;
    line.text_ = std::move(text);
    line.finish();
    return line;
}

void CleanLine::finish() {
    for (;;) {
        const std::size_t size = text_.size();
        if (size >= 4 && text_.ends_with("=20") && !is_word_character(text_[size - 4]))
            text_.resize(size - 3);
        else if (size != 0 && (text_.back() == ' ' || text_.back() == '\t'))
            text_.pop_back();
        else
            break;
    }
    breaks_softly_ = text_.size() > 1 && text_.back() == '=' && text_[text_.size() - 2] != '=';
    if (breaks_softly_)
        text_.pop_back();
    lower_ = text_;
    for (char& each : lower_)
        if (each >= 'A' && each <= 'Z')
            each = static_cast<char>(each - 'A' + 'a');
}

std::string_view CleanLine::body() const {
    return body_of(text_);
}

std::string_view body_of(std::string_view text) {
    const auto skip_blanks = [&] {
        while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
            text.remove_prefix(1);
    };
    if (const std::size_t at = text.find(" kernel: "); at < 80)
        text.remove_prefix(at + 9);
    else if (text.starts_with("kernel: "))
        text.remove_prefix(8);
    if (text.starts_with('<') && text.find('>') < 5)
        text.remove_prefix(text.find('>') + 1);
    skip_blanks();
    while (text.starts_with('[')) {
        const std::size_t close = text.find(']');
        if (close == text.npos ||
            text.substr(1, close - 1).find_first_not_of(" .0123456789TC") != text.npos)
            break;
        text.remove_prefix(close + 1);
        skip_blanks();
    }
    return text;
}

LineTime time_before(std::string_view head) {
    return {monotonic(head), second_of_day(head)};
}

} // namespace moat::fault
