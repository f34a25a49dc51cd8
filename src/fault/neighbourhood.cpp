// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Draws the surroundings of an access to scale, in one row of characters. The diagnosis chooses the
// mappings; report_text.cpp prints the row.
#include "moat/core/text.hpp"
#include "moat/fault/report.hpp"

#include <algorithm>
#include <array>
#include <bit>

namespace moat::fault {

namespace {

// What a column shows; the last one hides the others.
constexpr char nothing = '.';
constexpr char past = 'x';
constexpr char guard = 'g';
constexpr char red_zone = 'r';
constexpr char other = 'm';
constexpr char blamed = 'B';
constexpr std::string_view order = ".xgrmB";

/// Divides [first, last] into at most `columns` + 1 columns. A column is a power of two and begins
/// at a multiple of itself, so that pages begin at columns.
class Canvas {
  public:
    Canvas(std::uint64_t first, std::uint64_t last, unsigned columns)
        : column_(std::bit_ceil((last - first) / columns + 1)) {
        first_ = first & ~(column_ - 1);
        row_.assign((last - first_) / column_ + 1, nothing);
    }

    [[nodiscard]] std::uint64_t column_bytes() const { return column_; }

    [[nodiscard]] std::uint64_t first() const { return first_; }

    [[nodiscard]] std::uint64_t last() const { return first_ + (row_.size() * column_ - 1); }

    [[nodiscard]] const std::string& row() const { return row_; }

    /// Shows [first, last] as `what`, in at least one column, unless something later in the order
    /// is there.
    void draw(std::uint64_t first, std::uint64_t last, char what) {
        if (last < first_ || first > this->last() || first > last)
            return;
        const auto [low, high] = columns(first, last);
        for (std::size_t at = low; at <= high; ++at)
            if (order.find(what) > order.find(row_[at]))
                row_[at] = what;
    }

    /// A row of carets under the columns of [first, last].
    [[nodiscard]] std::string carets(std::uint64_t first, std::uint64_t last) const {
        const auto [low, high] = columns(first, last);
        return std::string(low, ' ') + std::string(high - low + 1, '^');
    }

  private:
    [[nodiscard]] std::pair<std::size_t, std::size_t> columns(std::uint64_t first,
                                                              std::uint64_t last) const {
        const std::uint64_t low = std::max(first, first_) - first_;
        const std::uint64_t high = std::min(last, this->last()) - first_;
        return {low / column_, high / column_};
    }

    std::uint64_t column_;
    std::uint64_t first_;
    std::string row_;
};

[[nodiscard]] std::uint64_t minus(std::uint64_t a, std::uint64_t b) {
    return a < b ? 0 : a - b;
}

[[nodiscard]] std::uint64_t plus(std::uint64_t a, std::uint64_t b) {
    return a + b < a ? ~std::uint64_t{0} : a + b;
}

void draw_mapping(Canvas& canvas, const Mapping& mapping, char what, std::uint64_t page_bytes) {
    const std::uint64_t first = mapping.range.start().value();
    const std::uint64_t last = mapping.range.last().value();
    const std::uint64_t first_of_page = first & ~(page_bytes - 1);
    const std::uint64_t last_of_page = last | (page_bytes - 1);
    const std::uint64_t before = mapping.guard_before.value();
    const std::uint64_t after = mapping.guard_after.value();
    if (before != 0 && first_of_page != 0)
        canvas.draw(minus(first_of_page, before), first_of_page - 1, guard);
    if (after != 0 && last_of_page != ~std::uint64_t{0})
        canvas.draw(last_of_page + 1, plus(last_of_page, after), guard);
    if (first != first_of_page)
        canvas.draw(first_of_page, first - 1, red_zone);
    if (last != last_of_page)
        canvas.draw(last + 1, last_of_page, red_zone);
    canvas.draw(first, last, what);
}

/// The range of the map: the access, the blamed mapping, its guard, and an eighth more on each
/// side.
[[nodiscard]] Canvas canvas_for(const Diagnosis& diagnosis, unsigned columns) {
    std::uint64_t first = diagnosis.record.where.start().value();
    std::uint64_t last = diagnosis.record.where.last().value();
    const auto include = [&](const Mapping& mapping) {
        first = std::min(first, minus(mapping.range.start().value(), mapping.guard_before.value()));
        last = std::max(last, plus(mapping.range.last().value(), mapping.guard_after.value()));
    };
    if (diagnosis.mapping)
        include(*diagnosis.mapping);
    if (diagnosis.kind == fault::Kind::use_after_unmap)
        include(diagnosis.past->mapping);
    if (diagnosis.next)
        include(*diagnosis.next);
    const std::uint64_t margin = std::max<std::uint64_t>((last - first) / 8, 16);
    return {minus(first, margin), plus(last, margin), std::clamp(columns, 16U, 4096U)};
}

[[nodiscard]] std::string legend(const std::string& row) {
    struct Entry {
        char sign;
        std::string_view meaning;
    };

    constexpr std::array<Entry, 6> entries = {{{blamed, "the mapping in question"},
                                               {other, "another mapping"},
                                               {red_zone, "red zone: rest of its page"},
                                               {guard, "guard"},
                                               {past, "unmapped before"},
                                               {nothing, "never mapped, or not remembered"}}};
    std::string text = "  ";
    for (const Entry& entry : entries)
        if (row.find(entry.sign) != row.npos)
            text += std::string(1, entry.sign) + " " + std::string(entry.meaning) + "   ";
    return text + "^ the access\n";
}

} // namespace

std::string neighbourhood(const Diagnosis& diagnosis, const ReportOptions& options) {
    const Record& record = diagnosis.record;
    const bool empty = !diagnosis.mapping && !diagnosis.past;
    if (record.precision == Precision::none || record.where.empty() || empty)
        return {};
    Canvas canvas = canvas_for(diagnosis, options.map_columns);
    if (diagnosis.past) {
        const IovaRange& range = diagnosis.past->mapping.range;
        canvas.draw(range.start().value(), range.last().value(), past);
    }
    for (const auto& each : {diagnosis.left, diagnosis.right, diagnosis.next})
        if (each)
            draw_mapping(canvas, *each, other, options.page_bytes);
    if (diagnosis.mapping)
        draw_mapping(canvas, *diagnosis.mapping, blamed, options.page_bytes);
    const std::string caret =
        canvas.carets(record.where.start().value(), record.where.last().value());
    const std::string from = hexadecimal(canvas.first());
    const std::string to = hexadecimal(canvas.last());
    return "Neighbourhood, one column is " + to_string(ByteCount(canvas.column_bytes())) + ":\n  " +
           from + " |" + canvas.row() + "| " + to + "\n  " + std::string(from.size() + 2, ' ') +
           caret + "\n" + legend(canvas.row());
}

} // namespace moat::fault
