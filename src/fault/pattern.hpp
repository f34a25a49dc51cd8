// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Patterns of log lines: literal text with typed fields, and how a match becomes an event. The
// tables in dialects/ are made of these; decode.cpp matches them.
#pragma once

#include "moat/fault/decode.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace moat::fault {

/// What a field reads, and where its value goes.
enum class Field : std::uint8_t {
    literal, ///< not a field: text in any case; a blank stands for any number of blanks
    begin,   ///< "{?": what follows, up to "?}", may be absent
    end,
    skip,     ///< "{*}": text up to the next literal
    pci,      ///< "0000:02:00.0", "02:00.0", "0x02:0x00.0", "02:00:0" -> record.source, device
    rid,      ///< a requester ID in hexadecimal -> record.source
    sid,      ///< a StreamID in hexadecimal -> record.source
    dsid,     ///< a StreamID in decimal
    endpoint, ///< decimal
    devid,    ///< a RISC-V device_id in hexadecimal
    addr,     ///< hexadecimal -> record.where, the first byte
    page,     ///< hexadecimal -> record.where, a page
    last,     ///< hexadecimal; after addr: the last byte of the range
    size,     ///< decimal, or hexadecimal with "0x" -> bytes; after addr: of the range
    hsize,    ///< the same, hexadecimal
    pasid,    ///< "NO_PASID", "PASID 0x1", "PASID ffffffff" (none), or a hexadecimal number
    access,   ///< a word: "DMA Read", "W", "write access", ...
    code,     ///< hexadecimal with "0x", else decimal -> record.code
    hcode,    ///< hexadecimal
    domain,   ///< hexadecimal
    ddomain,  ///< decimal
    error,    ///< decimal, with or without a sign -> error
    count,    ///< decimal -> record.suppressed
    unit,     ///< up to the next literal
    driver,   ///< the same
    device,   ///< the same; also a PCI function if it is one
    text,     ///< the same, may be empty
    hex,      ///< "{hex:NAME}": hexadecimal -> numbers
    number,   ///< "{number:NAME}": hexadecimal with "0x", else decimal -> numbers
    word,     ///< 16 hexadecimal digits at the end of the line -> numbers
};

/// What the words before a pattern name: "nvme 0000:02:00.0: ". `host`: the function that QEMU's or
/// libvirt's words name anywhere before it, "host=0000:02:00.0", "vfio 0000:02:00.0".
enum class Head : std::uint8_t { none, device, unit, host };

/// Messages of several lines. A line that continues one adds its facts to the event of the first.
enum class Message : std::uint8_t {
    none,
    intel,
    queue,
    table,
    smmu_v3,
    global_fault,
    context_fault,
    xen,
    amd,
    exynos,
    soc,
    qemu,
    vfio,        ///< why, before which mapping
    vfio_mapping ///< which mapping, before "unable to continue"
};

/// One line of a dialect.
struct Pattern {
    struct Item {
        std::uint8_t at = 0; ///< of the literal, or of the number's name
        std::uint8_t size = 0;
        Field field = Field::literal;
    };

    /// `text` begins with a literal. A mistake in it does not compile.
    consteval explicit(false) Pattern(const char* written) : text(written) { parse(); }

    [[nodiscard]] constexpr std::string_view name_of(Item item) const {
        return text.substr(item.at, item.size);
    }

    std::string_view text;
    std::array<Item, 64> items = {};
    std::uint8_t count = 0;
    /// The first word, in lower case: what a line is searched for.
    std::array<char, 16> anchor = {};
    std::uint8_t anchor_size = 0;

  private:
    consteval void parse();

    consteval void add(Field field, std::size_t at, std::size_t size) {
        items.at(count++) = {static_cast<std::uint8_t>(at), static_cast<std::uint8_t>(size), field};
    }
};

/// A row of a dialect's table.
struct Row {
    Pattern pattern;
    LogEvent::Kind kind = LogEvent::Kind::fault;
    Reason reason = Reason::unknown;
    Head head = Head::none;
    Message begins = Message::none;
    Message continues = Message::none;
    /// Completes the event from its code and numbers.
    void (*interpret)(LogEvent& event) = nullptr;
    /// With the line after it, a row above may match and read more.
    bool may_wrap = false;
};

/// The lines of one program.
struct Dialect {
    Origin origin;
    /// At most 8 words, lower case: a line without any of them is not of this dialect.
    std::string_view marks;
    std::span<const Row> rows;
};

/// What a match read.
struct Match {
    struct Capture {
        Field field = Field::literal;
        std::string_view name = {};
        std::string_view text = {};
        std::uint64_t value = 0;
    };

    std::array<Capture, 24> captures = {};
    std::size_t count = 0;
    std::size_t begin = 0; ///< of the pattern's text in the line
    std::size_t end = 0;
    bool cut = false; ///< the line ended where more could follow
};

/// Finds `pattern` anywhere in `line`; `lower` is the same line in lower case. Time is linear in
/// the line: it tries the first few places that begin with the pattern's first word.
[[nodiscard]] bool find_match(const Pattern& pattern, std::string_view line, std::string_view lower,
                              Match& match);

/// Adds what `match` read in `line` to `event`, and completes it.
void add_facts(const Row& row, const Match& match, std::string_view line, LogEvent& event);

/// All dialects.
[[nodiscard]] std::span<const Dialect> dialects();

consteval void Pattern::parse() {
    struct Name {
        std::string_view text;
        Field field;
    };

    constexpr std::array<Name, 27> names = {{
        {"*", Field::skip},        {"pci", Field::pci},       {"rid", Field::rid},
        {"sid", Field::sid},       {"dsid", Field::dsid},     {"endpoint", Field::endpoint},
        {"devid", Field::devid},   {"addr", Field::addr},     {"page", Field::page},
        {"last", Field::last},     {"size", Field::size},     {"hsize", Field::hsize},
        {"pasid", Field::pasid},   {"access", Field::access}, {"code", Field::code},
        {"hcode", Field::hcode},   {"domain", Field::domain}, {"ddomain", Field::ddomain},
        {"error", Field::error},   {"count", Field::count},   {"unit", Field::unit},
        {"driver", Field::driver}, {"device", Field::device}, {"text", Field::text},
        {"hex", Field::hex},       {"number", Field::number}, {"word", Field::word},
    }};
    for (std::size_t at = 0; at != text.size();) {
        if (text.substr(at).starts_with("{?")) {
            add(Field::begin, at, 0);
            at += 2;
        } else if (text.substr(at).starts_with("?}")) {
            add(Field::end, at, 0);
            at += 2;
        } else if (text[at] == '{') {
            const std::size_t close = text.find('}', at);
            const std::string_view whole = text.substr(at + 1, close - at - 1);
            const std::size_t colon = whole.find(':');
            const std::string_view name = whole.substr(0, colon);
            bool known = false;
            for (const Name& each : names)
                if (each.text == name) {
                    known = true;
                    if (colon == whole.npos)
                        add(each.field, at, 0);
                    else
                        add(each.field, at + 1 + colon + 1, whole.size() - colon - 1);
                }
            if (!known)
                throw "a field of this name does not exist";
            at = close + 1;
        } else {
            std::size_t stop = at;
            while (stop != text.size() && text[stop] != '{' && !text.substr(stop).starts_with("?}"))
                ++stop;
            add(Field::literal, at, stop - at);
            at = stop;
        }
    }
    if (count == 0 || items[0].field != Field::literal)
        throw "a pattern begins with text";
    for (const char each : text.substr(0, items[0].size)) {
        if (each == ' ' || anchor_size == anchor.size())
            break;
        anchor[anchor_size++] =
            each >= 'A' && each <= 'Z' ? static_cast<char>(each - 'A' + 'a') : each;
    }
    if (anchor_size == 0)
        throw "a pattern begins with a word";
}

} // namespace moat::fault
