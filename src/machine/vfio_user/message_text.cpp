// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_user/message_text.hpp"

#include "core/parse.hpp"

#include <algorithm>
#include <array>
#include <system_error>

namespace moat::machine::vfio_user {

namespace {

/// By number; the others are written as numbers.
constexpr std::array<std::string_view, 19> command_names = {"",
                                                            "version",
                                                            "dma-map",
                                                            "dma-unmap",
                                                            "get-info",
                                                            "get-region",
                                                            "get-region-fds",
                                                            "get-irq",
                                                            "set-irqs",
                                                            "region-read",
                                                            "region-write",
                                                            "dma-read",
                                                            "dma-write",
                                                            "reset",
                                                            "",
                                                            "write-multi",
                                                            "feature",
                                                            "migration-read",
                                                            "migration-write"};

/// Shorter runs of equal bytes are written out.
constexpr std::size_t least_run = 8;

void append_number(std::string& line, std::uint64_t value, int base = 10) {
    std::array<char, 20> digits{};
    const auto end = std::to_chars(digits.begin(), digits.end(), value, base).ptr;
    line.append(digits.begin(), end).push_back(' ');
}

void append_byte(std::string& line, std::byte value) {
    constexpr std::string_view digits = "0123456789abcdef";
    line += digits[std::to_integer<unsigned>(value >> 4)];
    line += digits[std::to_integer<unsigned>(value & std::byte{0xf})];
}

void append_body(std::string& line, std::span<const std::byte> body) {
    bool within = false; // a word of single bytes
    for (std::size_t at = 0; at != body.size();) {
        const std::byte value = body[at];
        const auto rest = body.subspan(at);
        const auto run = static_cast<std::size_t>(
            std::ranges::find_if(rest, [&](std::byte each) { return each != value; }) -
            rest.begin());
        const bool is_long = run >= least_run;
        if ((is_long || !within) && at != 0)
            line += ' ';
        append_byte(line, value);
        if (is_long)
            line += '*' + std::to_string(run);
        within = !is_long;
        at += is_long ? run : 1;
    }
}

/// Takes words of a line.
class Words {
  public:
    explicit Words(std::string_view line) : rest_(line) {}

    [[nodiscard]] bool ended() const { return rest_.empty(); }

    std::string_view word() { return take_until(rest_, ' '); }

    /// Nothing unless the word is a number of type T.
    template <class T>
    std::optional<T> number(int base = 10) {
        return number_in<T>(word(), base);
    }

  private:
    std::string_view rest_;
};

[[nodiscard]] std::optional<Command> command_of(std::string_view word) {
    const auto* const known = std::ranges::find(command_names, word);
    if (known != command_names.end() && !word.empty())
        return static_cast<Command>(known - command_names.begin());
    const auto number = number_in<std::uint16_t>(word, 10);
    return number ? std::optional(static_cast<Command>(*number)) : std::nullopt;
}

/// Appends the bytes of a word: "0102", or "00*64". Return: false if it is neither, or too much.
[[nodiscard]] bool take_bytes(std::string_view word, std::vector<std::byte>& body) {
    const std::size_t star = word.find('*');
    std::size_t times = 1;
    if (star != word.npos) {
        const auto number = number_in<std::uint32_t>(word.substr(star + 1), 10);
        if (!number || *number == 0 || star != 2)
            return false;
        times = *number;
        word = word.substr(0, star);
    }
    if (word.empty() || word.size() % 2 != 0 ||
        times * word.size() / 2 > most_message - body.size())
        return false;
    for (; !word.empty(); word.remove_prefix(2)) {
        const auto value = number_in<std::uint8_t>(word.substr(0, 2), 16);
        if (!value)
            return false;
        body.insert(body.end(), times, std::byte{*value});
    }
    return true;
}

} // namespace

std::string line_of(Role from, const Header& header, std::size_t descriptors,
                    std::span<const std::byte> body) {
    std::string line = from == Role::client ? "> " : "< ";
    append_number(line, header.id);
    const auto command = static_cast<std::size_t>(header.command);
    if (command < command_names.size() && !command_names[command].empty())
        line.append(command_names[command]) += ' ';
    else
        append_number(line, command);
    append_number(line, header.flags, 16);
    append_number(line, header.error);
    append_number(line, descriptors);
    if (body.empty())
        line.pop_back();
    append_body(line, body);
    return line;
}

Result<CapturedMessage> message_of(std::string_view line) {
    const auto wrong = [&](std::uint64_t field) {
        return fail(ErrorCode::out_of_range, "not a captured message", {"field", field},
                    {"bytes", line.size()});
    };
    Words words(line);
    const std::string_view way = words.word();
    if (way != ">" && way != "<")
        return wrong(1);
    CapturedMessage message{.from = way == ">" ? Role::client : Role::server};
    const auto id = words.number<std::uint16_t>();
    const auto command = command_of(words.word());
    const auto flags = words.number<std::uint32_t>(16);
    const auto error = words.number<std::uint32_t>();
    const auto descriptors = words.number<std::uint32_t>();
    if (!id || !command || !flags || !error || !descriptors || *descriptors > most_descriptors)
        return wrong(2);
    while (!words.ended())
        if (!take_bytes(words.word(), message.body))
            return wrong(7);
    message.header = {.id = *id,
                      .command = *command,
                      .size = static_cast<std::uint32_t>(sizeof(Header) + message.body.size()),
                      .flags = *flags,
                      .error = *error};
    message.descriptors = *descriptors;
    return message;
}

} // namespace moat::machine::vfio_user
