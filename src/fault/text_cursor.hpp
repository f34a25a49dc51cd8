// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A position in a line of text; each function moves it only past what it finds. Knows no format;
// the decoders use it.
#pragma once

#include "moat/fault/record.hpp"

#include <charconv>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::fault {

class TextCursor {
  public:
    explicit TextCursor(std::string_view text) : rest_(text) {}

    [[nodiscard]] std::string_view rest() const { return rest_; }

    /// Moves past the first `wanted`; stays if there is none.
    [[nodiscard]] bool find(std::string_view wanted) {
        const std::size_t at = rest_.find(wanted);
        if (at == std::string_view::npos)
            return false;
        rest_.remove_prefix(at + wanted.size());
        return true;
    }

    /// Moves past `wanted` if it is next.
    [[nodiscard]] bool accept(std::string_view wanted) {
        if (!rest_.starts_with(wanted))
            return false;
        rest_.remove_prefix(wanted.size());
        return true;
    }

    /// Returns what precedes `stop`, or the rest; moves past the stop.
    [[nodiscard]] std::string_view until(std::string_view stop) {
        const std::size_t at = rest_.find(stop);
        const std::string_view found = rest_.substr(0, at);
        rest_.remove_prefix(at == std::string_view::npos ? rest_.size() : at + stop.size());
        return found;
    }

    /// A number without sign or prefix. Return: nothing without digits, or on overflow.
    template <std::unsigned_integral T = std::uint64_t>
    [[nodiscard]] std::optional<T> number(int base) {
        T value = 0;
        const auto [end, error] =
            std::from_chars(rest_.data(), rest_.data() + rest_.size(), value, base);
        if (error != std::errc{})
            return std::nullopt;
        rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
        return value;
    }

    /// Hexadecimal, with or without "0x".
    template <std::unsigned_integral T = std::uint64_t>
    [[nodiscard]] std::optional<T> hex() {
        static_cast<void>(accept("0x"));
        return number<T>(16);
    }

    template <std::unsigned_integral T = std::uint64_t>
    [[nodiscard]] std::optional<T> decimal() {
        return number<T>(10);
    }

    /// Finds `key` and reads the hexadecimal number after it.
    template <std::unsigned_integral T = std::uint64_t>
    [[nodiscard]] std::optional<T> hex_after(std::string_view key) {
        return find(key) ? hex<T>() : std::nullopt;
    }

  private:
    std::string_view rest_;
};

/// The page that holds `address`.
[[nodiscard]] constexpr IovaRange page_at(std::uint64_t address) {
    return {Iova(address & ~std::uint64_t{0xfff}), ByteCount(0x1000)};
}

[[nodiscard]] constexpr IovaRange byte_at(std::uint64_t address) {
    return {Iova(address), ByteCount(1)};
}

} // namespace moat::fault
