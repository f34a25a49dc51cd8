// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Matches patterns: a cursor that moves forward, and one function per kind of field.
#include "pattern.hpp"

#include "text_cursor.hpp"

namespace moat::fault {

namespace {

using Capture = Match::Capture;
using Item = Pattern::Item;

/// So many numbers of one event are kept.
constexpr std::size_t most_numbers = 16;

/// So many places of a line are tried as a pattern's beginning, or a field's end.
constexpr unsigned most_places = 4;

[[nodiscard]] constexpr char lowered(char each) {
    return each >= 'A' && each <= 'Z' ? static_cast<char>(each - 'A' + 'a') : each;
}

[[nodiscard]] constexpr bool is_blank(char each) {
    return each == ' ' || each == '\t';
}

[[nodiscard]] constexpr bool is_letter(char each) {
    return lowered(each) >= 'a' && lowered(each) <= 'z';
}

/// "0000:02:00.0", "02:00.0", "0x02:0x00.0", and "02:00:0" with all numbers hexadecimal.
[[nodiscard]] std::optional<Source> read_pci(TextCursor& cursor) {
    std::array<std::uint32_t, 3> numbers = {};
    std::size_t count = 0;
    while (count != numbers.size()) {
        const auto number = cursor.hex<std::uint32_t>();
        if (!number)
            return std::nullopt;
        numbers[count++] = *number;
        if (!cursor.accept(":"))
            break;
    }
    std::uint32_t function = 0;
    if (count >= 2 && cursor.accept(".")) {
        if (cursor.rest().empty() || cursor.rest()[0] < '0' || cursor.rest()[0] > '7')
            return std::nullopt;
        function = static_cast<std::uint32_t>(cursor.rest()[0] - '0');
        static_cast<void>(cursor.accept(cursor.rest().substr(0, 1)));
    } else if (count == 3) {
        function = numbers[2];
        --count;
    } else {
        return std::nullopt;
    }
    const std::uint32_t bus = numbers[count - 2];
    const std::uint32_t device = numbers[count - 1];
    const bool is_hidden = count == 3 && numbers[0] > 0xffff; // a domain of Linux's own, for VMD
    if (bus > 0xff || device > 0x1f || function > 7 || is_hidden)
        return std::nullopt;
    std::optional<std::uint16_t> segment;
    if (count == 3)
        segment = static_cast<std::uint16_t>(numbers[0]);
    return Source::pci(bus, device, function, segment);
}

class Matcher {
  public:
    Matcher(const Pattern& pattern, std::string_view line, std::string_view lower, Match& match)
        : pattern_(pattern), line_(line), lower_(lower), match_(match) {}

    /// Whether the items match from `at` on.
    [[nodiscard]] bool matches(std::size_t at) {
        at_ = at;
        match_.begin = at;
        match_.count = 0;
        match_.cut = false;
        for (std::size_t item = 0; item < pattern_.count; ++item) {
            const Field field = pattern_.items[item].field;
            if (field == Field::begin)
                item = optional(item);
            else if (field != Field::end && !one(item))
                return false;
        }
        match_.end = at_;
        return true;
    }

  private:
    /// Matches the optional items after `begin`, or none of them. Return: the last one.
    std::size_t optional(std::size_t begin) {
        const std::size_t at = at_;
        const std::size_t count = match_.count;
        std::size_t item = begin + 1;
        bool matched = true;
        for (; item < pattern_.count && pattern_.items[item].field != Field::end; ++item)
            matched = matched && one(item);
        if (!matched) {
            match_.cut = match_.cut || at_end() || line_.substr(at_) == "0x";
            at_ = at;
            match_.count = count;
        }
        return item;
    }

    [[nodiscard]] bool at_end() {
        blanks();
        return at_ >= line_.size();
    }

    /// A mail program moved the bracket of the next line's time up.
    [[nodiscard]] bool ends_in_bracket() const { return line_.substr(at_) == " ["; }

    void blanks() {
        while (at_ < line_.size() && is_blank(line_[at_]))
            ++at_;
    }

    [[nodiscard]] bool literal(std::string_view text) {
        for (const char each : text) {
            if (each == ' ' || each == ',')
                blanks();
            if (each == ' ')
                continue;
            if (at_ < line_.size() && lower_[at_] == lowered(each))
                ++at_;
            else
                return false;
        }
        return true;
    }

    /// Where the next literal after `item` begins; the end of the line if none follows.
    [[nodiscard]] std::optional<std::size_t> next_literal(std::size_t item) {
        bool optional = true;
        for (++item; item < pattern_.count; ++item) {
            const Field field = pattern_.items[item].field;
            if (field == Field::begin || field == Field::end)
                continue;
            if (field != Field::literal)
                break;
            optional = pattern_.items[item - 1].field == Field::begin;
            std::string_view text = pattern_.name_of(pattern_.items[item]);
            while (text.starts_with(' '))
                text.remove_prefix(1);
            if (text.empty())
                text = " ";
            const std::size_t start = at_;
            std::size_t place = start;
            for (unsigned tries = 0; tries != most_places * 4 && place < line_.size(); ++tries) {
                place = lower_.find(lowered(text[0]), place);
                if (place == lower_.npos)
                    break;
                at_ = place;
                const bool found = literal(text);
                at_ = start;
                if (found)
                    return place;
                ++place;
            }
            if (!optional)
                return std::nullopt;
        }
        return optional ? std::optional(line_.size()) : std::nullopt;
    }

    [[nodiscard]] bool keep(Capture capture) {
        if (match_.count != match_.captures.size())
            match_.captures[match_.count++] = capture;
        return true;
    }

    [[nodiscard]] bool words(std::size_t item, bool may_be_empty) {
        const auto stop = next_literal(item);
        if (!stop)
            return false;
        std::string_view text = line_.substr(at_, *stop - at_);
        at_ = *stop;
        while (!text.empty() && is_blank(text.back()))
            text.remove_suffix(1);
        while (!text.empty() && is_blank(text.front()))
            text.remove_prefix(1);
        if (text.empty() && !may_be_empty)
            return false;
        const bool promised = pattern_.name_of(pattern_.items[item - 1]).ends_with(": ");
        match_.cut = match_.cut || (text.empty() && promised && at_ >= line_.size());
        return keep({pattern_.items[item].field, {}, text, 0});
    }

    [[nodiscard]] bool access() {
        const std::size_t start = at_;
        while (at_ < line_.size() && is_letter(line_[at_]))
            ++at_;
        return at_ != start && keep({Field::access, {}, lower_.substr(start, at_ - start), 0});
    }

    [[nodiscard]] bool one(std::size_t item);
    [[nodiscard]] bool number(Field field, std::string_view name);

    const Pattern& pattern_;
    std::string_view line_;
    std::string_view lower_;
    Match& match_;
    std::size_t at_ = 0;
};

bool Matcher::number(Field field, std::string_view name) {
    TextCursor cursor(line_.substr(at_));
    std::optional<std::uint64_t> value;
    const bool prefixed = cursor.rest().starts_with("0x") || cursor.rest().starts_with("0X");
    switch (field) {
    case Field::dsid:
    case Field::endpoint:
    case Field::ddomain:
    case Field::count:
        value = cursor.decimal();
        break;
    case Field::error:
        static_cast<void>(cursor.accept("-"));
        value = cursor.decimal();
        break;
    case Field::code:
    case Field::size:
    case Field::number:
        value = prefixed ? cursor.hex() : cursor.decimal();
        break;
    default:
        value = cursor.hex();
        break;
    }
    if (!value)
        return false;
    const std::size_t digits = line_.size() - cursor.rest().size() - at_;
    at_ += digits;
    if (field == Field::word && (digits != 16 || (at_ != line_.size() && !ends_in_bracket())))
        return false;
    if ((field == Field::addr || field == Field::page) && at_ < line_.size() &&
        is_letter(line_[at_]))
        return false; // not a number
    return keep({field, field == Field::word ? "word" : name, {}, *value});
}

bool Matcher::one(std::size_t item) {
    const Item each = pattern_.items[item];
    switch (each.field) {
    case Field::literal:
        return literal(pattern_.name_of(each));
    case Field::skip:
    case Field::text:
        return words(item, true);
    case Field::unit:
    case Field::driver:
    case Field::device:
        return words(item, false);
    case Field::access:
        return access();
    case Field::pci: {
        TextCursor cursor(line_.substr(at_));
        const auto source = read_pci(cursor);
        if (!source)
            return false;
        const std::size_t end = line_.size() - cursor.rest().size();
        const std::string_view text = line_.substr(at_, end - at_);
        at_ = end;
        return keep({each.field, {}, text, 0});
    }
    case Field::pasid: {
        const std::size_t start = at_;
        for (const std::string_view none : {"no_pasid", "no pasid", "nopasid"}) {
            if (literal(none))
                return true;
            at_ = start;
        }
        if (!literal("pasid "))
            at_ = start;
        return number(each.field, {});
    }
    case Field::begin:
    case Field::end:
        return true;
    default:
        return number(each.field, pattern_.name_of(each));
    }
}

[[nodiscard]] Access access_named(std::string_view word) {
    if (word == "rw" || word == "readwrite")
        return Access::write;
    if (word == "x" || word == "rx" || word.starts_with("exec") || word.starts_with("inst") ||
        word == "fetch" || word == "ifetch")
        return Access::execute;
    if (word == "r" || word == "rd" || word.starts_with("read"))
        return Access::read;
    if (word == "w" || word == "wr" || word.starts_with("writ"))
        return Access::write;
    return Access::unknown;
}

void set_start(Record& record, std::uint64_t address) {
    record.where = byte_at(address);
    record.precision = Precision::start;
}

/// Makes `where` a range, if its start is known and the range does not wrap.
void set_size(LogEvent& event, std::uint64_t size) {
    event.bytes = size;
    Record& record = event.record;
    if (record.precision != Precision::start || size == 0)
        return;
    if (const auto range = IovaRange::make(record.where.start(), ByteCount(size))) {
        record.where = *range;
        record.precision = Precision::exact;
    }
}

void set_number(LogEvent& event, const Capture& capture) {
    Record& record = event.record;
    const std::uint64_t value = capture.value;
    const auto small = static_cast<std::uint32_t>(value);
    switch (capture.field) {
    case Field::rid:
        record.source = Source::requester(static_cast<std::uint16_t>(value));
        return;
    case Field::sid:
    case Field::dsid:
        record.source = Source::stream(small);
        return;
    case Field::endpoint:
        record.source = Source::endpoint(small);
        return;
    case Field::devid:
        record.source = Source::device_id(small);
        return;
    case Field::addr:
        return set_start(record, value);
    case Field::page:
        record.where = page_at(value);
        record.precision = Precision::page;
        return;
    case Field::last: {
        const std::uint64_t start = record.where.empty() ? 0 : record.where.start().value();
        if (value >= start && value - start != ~std::uint64_t{0})
            set_size(event, value - start + 1);
        return;
    }
    case Field::size:
    case Field::hsize:
        return set_size(event, value);
    case Field::pasid:
        if (small != ~std::uint32_t{0})
            record.pasid = small;
        return;
    case Field::code:
    case Field::hcode:
        record.code = value;
        return;
    case Field::domain:
    case Field::ddomain:
        record.domain = small;
        return;
    case Field::error:
        if (value <= 4095)
            event.error = static_cast<int>(value);
        return;
    case Field::count:
        record.suppressed = value;
        return;
    default:
        if (event.numbers.size() != most_numbers)
            event.numbers.push_back({capture.name, value});
        return;
    }
}

void set_device(LogEvent& event, std::string_view text) {
    event.device = text;
    TextCursor cursor(text);
    if (const auto source = read_pci(cursor); source && cursor.rest().empty())
        event.record.source = *source;
}

void set_fact(LogEvent& event, const Capture& capture) {
    switch (capture.field) {
    case Field::skip:
        return;
    case Field::pci:
    case Field::device:
        return set_device(event, capture.text);
    case Field::unit:
        event.unit = capture.text;
        return;
    case Field::driver:
        event.driver = capture.text;
        return;
    case Field::text:
        event.text = capture.text;
        return;
    case Field::access:
        event.record.access = access_named(capture.text);
        return;
    default:
        return set_number(event, capture);
    }
}

void add_host(std::string_view head, LogEvent& event) {
    for (const std::string_view word : {"vfio ", "host="}) {
        const std::size_t at = head.rfind(word);
        if (at == head.npos || !event.device.empty())
            continue;
        const std::string_view rest = head.substr(at + word.size());
        TextCursor cursor(rest);
        if (read_pci(cursor))
            set_device(event, rest.substr(0, rest.size() - cursor.rest().size()));
    }
}

/// "nvme 0000:02:00.0: ": the last word names a device or a unit, the one before it the driver.
void add_head(Head kind, std::string_view head, LogEvent& event) {
    if (kind == Head::host)
        return add_host(head, event);
    const auto trim = [&] {
        while (!head.empty() && (is_blank(head.back())))
            head.remove_suffix(1);
    };
    trim();
    for (const std::string_view tag : {"AMD-Vi:", "DMAR:", "PCI-DMA:", "DMA:"})
        if (head.ends_with(tag)) {
            head.remove_suffix(tag.size());
            trim();
        }
    if (kind == Head::none || !head.ends_with(':'))
        return;
    head.remove_suffix(1);
    const std::size_t blank = head.find_last_of(" \t]");
    const std::string_view name = head.substr(blank == head.npos ? 0 : blank + 1);
    if (name.empty() || name == "kernel" || name == "AMD-Vi" || name.size() > 64)
        return;
    const bool is_unit = kind == Head::unit || name.starts_with("ivhd") || name.starts_with("dmar");
    if (is_unit)
        event.unit = name;
    else if (event.device.empty())
        set_device(event, name);
    if (is_unit || blank == head.npos || head[blank] == ']')
        return;
    head = head.substr(0, blank);
    const std::size_t before = head.find_last_of(" \t]>\"'`(");
    std::string_view driver = head.substr(before == head.npos ? 0 : before + 1);
    if (kind == Head::device && driver.ends_with(".sysmmu:")) { // the unit, then its master
        driver.remove_suffix(1);
        event.unit = driver;
        return;
    }
    if (!driver.empty() && !driver.ends_with(':') && event.driver.empty())
        event.driver = driver;
}

} // namespace

bool find_match(const Pattern& pattern, std::string_view line, std::string_view lower,
                Match& match) {
    const std::string_view anchor(pattern.anchor.data(), pattern.anchor_size);
    Matcher matcher(pattern, line, lower, match);
    std::size_t at = lower.find(anchor);
    for (unsigned tries = 0; at != lower.npos && tries != most_places; ++tries) {
        if (matcher.matches(at))
            return true;
        at = lower.find(anchor, at + 1);
    }
    return false;
}

void add_facts(const Row& row, const Match& match, std::string_view line, LogEvent& event) {
    for (std::size_t index = 0; index != match.count; ++index)
        set_fact(event, match.captures[index]);
    add_head(row.head, line.substr(0, match.begin), event);
    if (row.interpret != nullptr)
        row.interpret(event);
}

} // namespace moat::fault
