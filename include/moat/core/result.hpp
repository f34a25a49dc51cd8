// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Error: what went wrong, in one line with the values involved, without allocating. Result<T>: a
// value or an Error; MOAT_TRY and MOAT_LET pass an Error on to the caller. Programmer errors hit
// MOAT_CHECK instead (core/check.hpp).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>
#include <utility>

namespace moat {

/// The kind of failure, for decisions of the caller.
enum class ErrorCode : std::uint8_t {
    empty,        ///< a length of zero
    unaligned,    ///< an address or length off the required multiple
    out_of_range, ///< beyond the format, the aperture or the device's reach
    overflow,     ///< start + length does not fit the address space
    overlap,      ///< the place is taken
    not_found,    ///< nothing is there, or not the named thing
    mismatch,     ///< the thing there has another size or kind
    refused,      ///< the caller's policy forbids it
    unsupported,  ///< the format, device or backend cannot express it
    no_memory,    ///< an allocation of memory failed
    no_space,     ///< no free range of addresses fits
    limit,        ///< a quota is used up
    busy,         ///< in use by another; may succeed later
    io,           ///< a device or the operating system failed
};

[[nodiscard]] constexpr std::string_view name(ErrorCode code) {
    constexpr std::array<std::string_view, 14> names = {
        "empty",     "unaligned", "out of range", "overflow",      "overlap",
        "not found", "mismatch",  "refused",      "unsupported",   "out of memory",
        "no space",  "limit",     "busy",         "input / output"};
    return names[static_cast<std::size_t>(code)];
}

/// A value involved in the failure; printed as `name=0x...`.
struct ErrorValue {
    const char* name = nullptr;
    std::uint64_t value = 0;
};

/// A failure: a code, a sentence with static lifetime, and up to four values. Trivially copyable.
class Error {
  public:
    static constexpr std::size_t most_values = 4;

    constexpr Error(ErrorCode code, const char* sentence, ErrorValue a = {}, ErrorValue b = {},
                    ErrorValue c = {}, ErrorValue d = {})
        : sentence_(sentence), values_{a, b, c, d}, code_(code) {}

    [[nodiscard]] constexpr ErrorCode code() const { return code_; }

    [[nodiscard]] constexpr std::string_view sentence() const { return sentence_; }

    /// The value with the name `wanted`, or nullptr.
    [[nodiscard]] constexpr const std::uint64_t* find(std::string_view wanted) const {
        for (const ErrorValue& each : values_)
            if (each.name != nullptr && wanted == each.name)
                return &each.value;
        return nullptr;
    }

    /// Writes "overlap: a leaf is mapped here (start=0x1000, size=0x2000)" into `line`, truncated
    /// to its size, without a final zero. Return: the number of characters written.
    constexpr std::size_t describe(std::span<char> line) const {
        LineWriter out{line};
        out.text(name(code_));
        out.text(": ");
        out.text(sentence_);
        bool first = true;
        for (const ErrorValue& each : values_) {
            if (each.name == nullptr)
                continue;
            out.text(first ? " (" : ", ");
            out.text(each.name);
            out.text("=");
            out.hexadecimal(each.value);
            first = false;
        }
        if (!first)
            out.text(")");
        return out.used;
    }

    /// Compares the codes only, which decide what a caller does.
    friend constexpr bool operator==(const Error& a, const Error& b) { return a.code_ == b.code_; }

  private:
    struct LineWriter {
        std::span<char> line;
        std::size_t used = 0;

        constexpr void text(std::string_view part) {
            for (char c : part)
                if (used < line.size())
                    line[used++] = c;
        }

        constexpr void hexadecimal(std::uint64_t value) {
            text("0x");
            int digits = 1;
            while (digits < 16 && (value >> (4 * digits)) != 0)
                ++digits;
            while (digits-- > 0) {
                const char digit = "0123456789abcdef"[(value >> (4 * digits)) & 0xf];
                text({&digit, 1});
            }
        }
    };

    const char* sentence_;
    std::array<ErrorValue, most_values> values_;
    ErrorCode code_;
};

/// Functions with expected failures return one and are [[nodiscard]], since g++ 12's std::expected
/// is not; lint reports ignored results too.
template <class T>
using Result = std::expected<T, Error>;

/// `return fail(ErrorCode::overlap, "...", {"start", start});`
[[nodiscard, gnu::cold]] constexpr std::unexpected<Error> fail(ErrorCode code, const char* sentence,
                                                               ErrorValue a = {}, ErrorValue b = {},
                                                               ErrorValue c = {},
                                                               ErrorValue d = {}) {
    return std::unexpected<Error>(Error(code, sentence, a, b, c, d));
}

} // namespace moat

// __LINE__ is expanded only by the second of two macros.
#define MOAT_PASTED(a, b) a##b
#define MOAT_JOINED(a, b) MOAT_PASTED(a, b)
#define MOAT_TRIED MOAT_JOINED(moat_tried_, __LINE__)

/// Returns the error of a Result from the calling function, if it has one. Ignores a value.
/// `MOAT_TRY(domain.unmap(start, size));`
#define MOAT_TRY(...)                                                                              \
    do {                                                                                           \
        if (auto MOAT_TRIED = (__VA_ARGS__); !MOAT_TRIED) [[unlikely]]                             \
            return std::unexpected(std::move(MOAT_TRIED).error());                                 \
    } while (false)

/// The same; `declaration` gets the value. Two statements, so not the whole body of an `if`.
/// `MOAT_LET(auto domain, machine.create_domain());`
#define MOAT_LET(declaration, ...)                                                                 \
    auto MOAT_TRIED = (__VA_ARGS__);                                                               \
    if (!MOAT_TRIED) [[unlikely]]                                                                  \
        return std::unexpected(std::move(MOAT_TRIED).error());                                     \
    declaration = *std::move(MOAT_TRIED)
