// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reads logs: finds the dialect of a line, joins lines that a mail program broke, and puts lines
// that belong together into one event. dialects/ has the patterns.
#include "moat/fault/decode.hpp"

#include "clean_line.hpp"
#include "core/parse.hpp"
#include "marks.hpp"
#include "pattern.hpp"
#include "trace_line.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

namespace moat::fault {

/// A row that matches a line.
struct Found {
    const Dialect* dialect = nullptr;
    const Row* row = nullptr;
    Match match = {};
};

namespace {

/// The most unrelated lines between two that belong together.
constexpr unsigned most_noise = 8;
/// The most lines that are joined.
constexpr unsigned most_joined = 3;

[[nodiscard]] bool has_mark(const Dialect& dialect, std::string_view lower) {
    std::string_view marks = dialect.marks;
    while (!marks.empty())
        if (lower.find(take_until(marks, '|')) != lower.npos)
            return true;
    return false;
}

/// Return: whether a dialect's row matches. `candidate`: whether a dialect's mark is in the line.
[[nodiscard]] bool recognise(std::string_view line, std::string_view lower, Found& found,
                             bool& candidate) {
    candidate = false;
    for (const Dialect& dialect : dialects()) {
        if (!has_mark(dialect, lower))
            continue;
        candidate = true;
        for (const Row& row : dialect.rows)
            if (find_match(row.pattern, line, lower, found.match)) {
                found.dialect = &dialect;
                found.row = &row;
                return true;
            }
    }
    return false;
}

/// Whether `line`, in lower case, may begin the pattern by itself.
[[nodiscard]] bool begins(const Found& found, std::string_view line) {
    const Pattern& pattern = found.row->pattern;
    return line.find({pattern.anchor.data(), pattern.anchor_size}) != line.npos;
}

[[nodiscard]] bool same_unit(const LogEvent& a, const LogEvent& b) {
    return a.unit.empty() || b.unit.empty() || a.unit == b.unit;
}

} // namespace

void Decoder::line(std::string_view line, Sink sink) {
    line = line.substr(0, longest_line);
    ++counts_.lines;
    const bool marked = interesting_marks.in(line);
    if (marked || carry_.lines != 0 || pending_.waits)
        interesting(line, marked, sink);
}

void Decoder::interesting(std::string_view line, bool marked, Sink sink) {
    const CleanLine clean(line);
    if (carry_.lines != 0 && joins(clean, sink))
        return;
    if (!marked) {
        if (pending_.waits && !continues(clean, sink) && ++pending_.noise > most_noise)
            finish(sink);
        if (carry_.facts == 0 && carry_.lines < most_joined && carry_.text.size() < longest_line) {
            carry_.text += carry_.breaks_softly ? "" : " ";
            carry_.text += clean.body();
            carry_.breaks_softly = clean.breaks_softly();
            ++carry_.lines;
        } else {
            give_up_carry();
        }
        return;
    }
    give_up_carry();
    const bool names_iommu = iommu_marks.in(line);
    counts_.naming_an_iommu += names_iommu ? 1 : 0;
    if (auto traced = decode_tracepoint(clean.text())) {
        finish(sink);
        traced->line_number = counts_.lines;
        sink(*traced);
        return;
    }
    Found found;
    bool candidate = false;
    if (recognise(clean.text(), clean.lower(), found, candidate)) {
        const bool may_grow = found.match.cut || found.row->may_wrap;
        if (may_grow)
            before_carry_ = pending_;
        take(found, clean.text(), counts_.lines, sink);
        if (may_grow)
            carry_ = {.text = std::string(clean.text()),
                      .number = counts_.lines,
                      .lines = 1,
                      .facts = found.match.count,
                      .names_iommu = names_iommu,
                      .breaks_softly = clean.breaks_softly(),
                      .is_whole = !found.match.cut};
        return;
    }
    if (pending_.waits && ++pending_.noise > most_noise)
        finish(sink);
    if (candidate || names_iommu)
        carry_ = {.text = std::string(clean.text()),
                  .number = counts_.lines,
                  .lines = 1,
                  .names_iommu = names_iommu,
                  .breaks_softly = clean.breaks_softly()};
}

bool Decoder::joins(const CleanLine& line, Sink sink) {
    const std::string_view body = line.body();
    // Quoted-printable mail adds "=" where it breaks a line; others may break after a "=".
    constexpr std::array<std::string_view, 3> after_equals = {"", "= ", "="};
    constexpr std::array<std::string_view, 2> after_others = {" ", ""};
    for (const std::string_view between :
         carry_.breaks_softly ? std::span<const std::string_view>(after_equals) : after_others) {
        std::string joined = carry_.text;
        joined += between;
        const std::size_t middle = joined.size();
        joined += body;
        const std::size_t joined_size = joined.size();
        const CleanLine clean = CleanLine::of_clean(std::move(joined));
        Found found;
        bool candidate = false;
        if (!recognise(clean.text(), clean.lower(), found, candidate))
            continue;
        const bool heads = carry_.text.ends_with(':') && found.row->head != Head::none;
        if ((found.match.begin >= middle && !heads) || found.match.end <= middle ||
            !reads_more(found, line.lower()))
            continue;
        forget_carried();
        const Carry before = std::exchange(carry_, {});
        take(found, clean.text(), before.number, sink);
        if (found.match.cut && before.lines < most_joined && joined_size < longest_line)
            carry_ = {.text = std::string(clean.text()),
                      .number = before.number,
                      .lines = before.lines + 1,
                      .facts = found.match.count,
                      .names_iommu = before.names_iommu,
                      .breaks_softly = line.breaks_softly()};
        return true;
    }
    return false;
}

bool Decoder::continues(const CleanLine& line, Sink sink) {
    const auto message = static_cast<Message>(pending_.message);
    if (message == Message::none)
        return false;
    for (const Dialect& dialect : dialects())
        for (const Row& row : dialect.rows) {
            if (dialect.origin != pending_.event.origin)
                break;
            Found found = {.dialect = &dialect, .row = &row};
            if (row.continues != message ||
                !find_match(row.pattern, line.text(), line.lower(), found.match))
                continue;
            take(found, line.text(), counts_.lines, sink);
            return true;
        }
    return false;
}

void Decoder::forget_carried() {
    if (pending_.event.line_number == carry_.number)
        pending_.waits = false;
    else if (before_carry_.waits && before_carry_.event.line_number == pending_.event.line_number)
        pending_ = before_carry_;
}

bool Decoder::reads_more(const Found& joined, std::string_view line) const {
    if (joined.match.count != carry_.facts)
        return joined.match.count > carry_.facts && !(carry_.is_whole && begins(joined, line));
    return carry_.breaks_softly || !(joined.match.cut || carry_.is_whole);
}

void Decoder::give_up_carry() {
    if (carry_.lines != 0 && carry_.facts == 0 && carry_.names_iommu && ++counts_.unknown == 1) {
        counts_.first_unknown_number = carry_.number;
        counts_.first_unknown = carry_.text;
    }
    carry_ = {};
}

void Decoder::take(const Found& found, std::string_view line, std::uint64_t number, Sink sink) {
    const Row& row = *found.row;
    LogEvent event{.kind = row.kind, .origin = found.dialect->origin};
    event.record.reason = row.reason;
    add_facts(row, found.match, line, event);
    if (event.kind == LogEvent::Kind::suppressed) {
        finish(sink);
        suppressed_ += std::min(event.record.suppressed, ~std::uint64_t{0} - suppressed_);
        return;
    }
    const bool is_another = !event.device.empty() && !pending_.event.device.empty() &&
                            event.kind == LogEvent::Kind::fault;
    if (pending_.waits && !is_another && row.continues != Message::none &&
        static_cast<Message>(pending_.message) == row.continues &&
        pending_.event.origin == event.origin && same_unit(pending_.event, event)) {
        const auto kind = pending_.event.kind;
        add_facts(row, found.match, line, pending_.event);
        if (kind == LogEvent::Kind::detail && row.kind != LogEvent::Kind::detail) {
            pending_.event.kind = event.kind;
            if (event.record.reason != Reason::unknown)
                pending_.event.record.reason = event.record.reason;
        }
        pending_.noise = 0;
        pending_.message = static_cast<std::uint8_t>(row.begins);
        if (row.begins == Message::none && !found.match.cut && !row.may_wrap)
            finish(sink);
        return;
    }
    finish(sink);
    const LineTime time = time_before(line.substr(0, found.match.begin));
    event.record.time_ns = time.monotonic_ns;
    event.second_of_day = time.second_of_day;
    event.line_number = number;
    event.raw = line;
    pending_ = {
        .event = std::move(event), .message = static_cast<std::uint8_t>(row.begins), .waits = true};
    const bool complete =
        row.begins == Message::none || (row.begins == Message::intel && pending_.event.record.code);
    if (complete && !found.match.cut && !row.may_wrap)
        finish(sink);
}

void Decoder::end(Sink sink) {
    give_up_carry();
    finish(sink);
    if (suppressed_ == 0)
        return;
    sink({.kind = LogEvent::Kind::suppressed,
          .record = {.reason = Reason::events_lost, .suppressed = std::exchange(suppressed_, 0)}});
}

void Decoder::finish(Sink sink) {
    if (!std::exchange(pending_.waits, false))
        return;
    if (pending_.event.kind == LogEvent::Kind::fault)
        pending_.event.record.suppressed = std::exchange(suppressed_, 0);
    sink(pending_.event);
}

} // namespace moat::fault
