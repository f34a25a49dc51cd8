// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/limits.hpp"

#include "moat/core/text.hpp"

#include "core/parse.hpp"

#include <algorithm>

namespace moat::run {

namespace {

constexpr std::uint64_t page_size = 4096;
constexpr std::uint64_t most_mappings = 65'535;
constexpr unsigned least_bits = 16;
constexpr unsigned most_bits = 57;
constexpr std::uint64_t most_locked = Limits{}.locked;

/// Of x86-64.
constexpr IovaRange interrupts = IovaRange::inclusive(Iova(0xfee0'0000), Iova(0xfeef'ffff));

[[nodiscard]] constexpr std::uint64_t last_of(unsigned bits) {
    return (std::uint64_t{1} << bits) - 1;
}

/// "0x1000-0x1fff": whole pages.
[[nodiscard]] std::optional<IovaRange> range_in(std::string_view text) {
    const auto address = [](std::string_view part) {
        return part.starts_with("0x") ? number_in<std::uint64_t>(part.substr(2), 16) : std::nullopt;
    };
    const auto first = address(take_until(text, '-'));
    const auto last = address(text);
    const bool is_range = first && last && *first < *last && *last <= last_of(most_bits) &&
                          *first % page_size == 0 && (*last + 1) % page_size == 0;
    return is_range ? std::optional(IovaRange::inclusive(Iova(*first), Iova(*last))) : std::nullopt;
}

/// Sets `to` to a number that is there and in range. Return: whether it is.
[[nodiscard]] bool set(auto& to, std::optional<std::uint64_t> value, std::uint64_t least,
                       std::uint64_t most) {
    const bool valid = value && *value >= least && *value <= most;
    if (valid)
        to = static_cast<std::remove_reference_t<decltype(to)>>(*value);
    return valid;
}

} // namespace

std::vector<IovaRange> Limits::aperture() const {
    std::vector<IovaRange> holes = reserved;
    holes.push_back(interrupts);
    std::ranges::sort(holes, {}, &IovaRange::start);
    const std::uint64_t end = last_of(bits) + 1;
    std::vector<IovaRange> ranges;
    std::uint64_t next = 0;
    const auto add_until = [&](std::uint64_t limit) {
        if (next < limit)
            ranges.push_back(IovaRange::inclusive(Iova(next), Iova(limit - 1)));
    };
    for (const IovaRange& hole : holes) {
        add_until(std::min(hole.start().value(), end));
        next = std::max(next, hole.end().value());
    }
    add_until(end);
    return ranges;
}

std::expected<void, std::string> apply_limit(Limits& limits, std::string_view text) {
    std::string_view value = text;
    const std::string_view name = take_until(value, '=');
    const auto failed = [&](std::string_view expected) {
        return std::unexpected('"' + std::string(text) + "\": expected " + std::string(expected));
    };
    if (name == "entries") {
        if (!set(limits.entries, number_in<std::uint64_t>(value), 1, most_mappings))
            return failed("entries=NUMBER, 1 to 65535");
    } else if (name == "locked") {
        if (!set(limits.locked, bytes_in(value), 0, most_locked))
            return failed("locked=BYTES, such as locked=64M");
    } else if (name == "bits") {
        if (!set(limits.bits, number_in<std::uint64_t>(value), least_bits, most_bits))
            return failed("bits=NUMBER, 16 to 57");
    } else if (name == "reserved") {
        const auto range = range_in(value);
        if (!range)
            return failed("reserved=FIRST-LAST, whole pages below 2^57 such as "
                          "reserved=0x10000-0x1ffff");
        limits.reserved.push_back(*range);
    } else {
        return failed("entries, locked, bits or reserved, such as entries=16");
    }
    if (limits.aperture().empty())
        return std::unexpected('"' + std::string(text) + "\" leaves no address to map");
    return {};
}

std::vector<std::string> to_texts(const Limits& limits) {
    std::vector<std::string> texts = {"entries=" + std::to_string(limits.entries),
                                      "locked=" + std::to_string(limits.locked),
                                      "bits=" + std::to_string(limits.bits)};
    for (const IovaRange& each : limits.reserved)
        texts.push_back("reserved=" + hexadecimal(each.start().value()) + '-' +
                        hexadecimal(each.last().value()));
    return texts;
}

} // namespace moat::run
