// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MOAT_OPTIONS, a table of names and what each reads.
#include "moat/dma/options.hpp"

#include "core/parse.hpp"

#include <array>
#include <limits>
#include <optional>
#include <utility>

namespace moat::dma {

namespace {

template <class T>
struct Choice {
    std::string_view word;
    T value;
};

constexpr std::array<Choice<Level>, 3> levels = {
    {{"guard", Level::guard}, {"track", Level::track}, {"exact", Level::exact}}};
constexpr std::array<Choice<Placement>, 2> placements = {
    {{"right", Placement::right}, {"left", Placement::left}}};
constexpr std::array<Choice<Unmapping>, 2> unmappings = {
    {{"strict", Unmapping::strict}, {"deferred", Unmapping::deferred}}};
constexpr std::array<Choice<DoubleMapping>, 2> double_mappings = {
    {{"report", DoubleMapping::report}, {"ignore", DoubleMapping::ignore}}};
constexpr std::array<Choice<CpuWatch>, 2> watches = {
    {{"asan", CpuWatch::asan}, {"off", CpuWatch::off}}};
constexpr std::array<Choice<ReportForm>, 2> forms = {
    {{"text", ReportForm::text}, {"json", ReportForm::json}}};
constexpr std::array<Choice<bool>, 2> truths = {{{"1", true}, {"0", false}}};

template <class T, std::size_t N>
[[nodiscard]] bool read_word(std::string_view text, const std::array<Choice<T>, N>& choices,
                             T& value) {
    for (const Choice<T>& each : choices)
        if (each.word == text) {
            value = each.value;
            return true;
        }
    return false;
}

[[nodiscard]] bool read_size(std::string_view text, ByteCount& size) {
    const auto bytes = bytes_in(text);
    size = ByteCount(bytes.value_or(size.value()));
    return bytes.has_value();
}

[[nodiscard]] bool read_count(std::string_view text, std::uint32_t least, std::uint32_t& count) {
    const auto number = number_in(text);
    if (!number || *number < least || *number > std::numeric_limits<std::uint32_t>::max())
        return false;
    count = static_cast<std::uint32_t>(*number);
    return true;
}

struct Option {
    std::string_view name;
    std::string_view expected;
    bool (*read)(std::string_view text, Options& options);
};

constexpr std::array<Option, 14> known = {{
    {"level", "guard, track or exact",
     [](std::string_view text, Options& to) { return read_word(text, levels, to.level); }},
    {"guard", "a size such as 4k",
     [](std::string_view text, Options& to) { return read_size(text, to.guard); }},
    {"guard_before", "a size such as 4k",
     [](std::string_view text, Options& to) { return read_size(text, to.guard_before); }},
    {"placement", "right or left",
     [](std::string_view text, Options& to) { return read_word(text, placements, to.placement); }},
    {"unmapping", "strict or deferred",
     [](std::string_view text, Options& to) { return read_word(text, unmappings, to.unmapping); }},
    {"quarantine", "a size such as 64m",
     [](std::string_view text, Options& to) { return read_size(text, to.quarantine); }},
    {"stacks", "a number, 0 for none",
     [](std::string_view text, Options& to) { return read_count(text, 0, to.stacks); }},
    {"history", "a number, 1 or more",
     [](std::string_view text, Options& to) { return read_count(text, 1, to.history); }},
    {"sample", "a number, 0 for none",
     [](std::string_view text, Options& to) { return read_count(text, 0, to.sample); }},
    {"double_mapping", "report or ignore",
     [](std::string_view text, Options& to) {
         return read_word(text, double_mappings, to.double_mapping);
     }},
    {"cpu", "asan or off",
     [](std::string_view text, Options& to) { return read_word(text, watches, to.cpu); }},
    {"report", "text or json",
     [](std::string_view text, Options& to) { return read_word(text, forms, to.report); }},
    {"record", "the name of a file, without a colon",
     [](std::string_view text, Options& to) {
         to.record = text;
         return !text.empty();
     }},
    {"help", "1 or 0",
     [](std::string_view text, Options& to) { return read_word(text, truths, to.help); }},
}};

[[nodiscard]] std::string quoted(std::string_view text) {
    return std::string("\"").append(text).append("\"");
}

[[nodiscard]] std::string all_names() {
    std::string names;
    for (const Option& each : known)
        names.append(names.empty() ? "" : ", ").append(each.name);
    return names;
}

/// Return: what is wrong with one `name=value`, or nothing.
[[nodiscard]] std::optional<std::string> read_one(std::string_view item, Options& options) {
    const auto equals = item.find('=');
    const std::string_view word = item.substr(0, equals);
    if (equals == std::string_view::npos)
        return "MOAT_OPTIONS: " + quoted(item) + " has no value; write name=value";
    const std::string_view value = item.substr(equals + 1);
    for (const Option& each : known) {
        if (each.name != word)
            continue;
        if (each.read(value, options))
            return std::nullopt;
        return "MOAT_OPTIONS: invalid value " + quoted(value) + " of " + quoted(word) + "; give " +
               std::string(each.expected);
    }
    return "MOAT_OPTIONS: unknown option " + quoted(word) + "; valid options: " + all_names();
}

} // namespace

std::expected<Options, std::string> parse_options(std::string_view text, const Options& defaults) {
    Options options = defaults;
    while (!text.empty()) {
        const std::string_view item = take_until(text, ':');
        if (item.empty())
            continue;
        if (auto wrong = read_one(item, options))
            return std::unexpected(*std::move(wrong));
    }
    return options;
}

std::string_view options_help() {
    return "level=guard|track|exact    how closely to watch devices (track)\n"
           "guard=SIZE                 unmapped bytes after each mapping (4k); 0 is off\n"
           "guard_before=SIZE          unmapped bytes before each mapping (0)\n"
           "placement=right|left       edge of a page for small buffers, at level exact (right)\n"
           "unmapping=strict|deferred  invalidate at each unmap, or in batches (strict)\n"
           "quarantine=SIZE            keep this much unmapped address space out of use (0)\n"
           "stacks=N                   take the call stack of every Nth mapping (0: none)\n"
           "history=N                  past mappings to remember (1024)\n"
           "sample=N                   watch one of N mappings as at level exact (0: none)\n"
           "double_mapping=report|ignore  memory that is mapped twice (report)\n"
           "cpu=asan|off               watch the CPU with AddressSanitizer, if present (asan)\n"
           "report=text|json           the form of reports (text)\n"
           "record=FILE                record mappings and faults for moat replay\n"
           "help=1                     print this list\n";
}

} // namespace moat::dma
