// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every function of moat.h does around its work: no exception passes it, a failure becomes a
// code and a line, and structs are taken in as large as their caller knows them.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/text.hpp"
#include "moat/moat.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <expected>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace moat::api::c {

[[nodiscard]] constexpr moat_code code_of(ErrorCode code) {
    return static_cast<moat_code>(code) + 1;
}

static_assert(code_of(ErrorCode::empty) == MOAT_EMPTY);
static_assert(code_of(ErrorCode::mismatch) == MOAT_MISMATCH);
static_assert(code_of(ErrorCode::io) == MOAT_IO && MOAT_IO + 1 == MOAT_INVALID);

/// Why a call did not do what it was asked to. Allocates nothing.
class Failure {
  public:
    Failure(moat_code code, std::string_view text) : code_(code) { set(text); }

    // Implicit, so that an Error of the rooms below is one.
    Failure(const Error& error) : code_(code_of(error.code())) { // NOLINT(*-explicit-constructor)
        text_[error.describe(std::span(text_).first(text_.size() - 1))] = '\0';
    }

    [[nodiscard]] moat_code code() const { return code_; }

    [[nodiscard]] const char* text() const { return text_.data(); }

  private:
    void set(std::string_view text) { text_[text.copy(text_.data(), text_.size() - 1)] = '\0'; }

    moat_code code_;
    std::array<char, 512> text_{};
};

using Outcome = std::expected<void, Failure>;

[[nodiscard]] inline std::unexpected<Failure> invalid(std::string_view text) {
    return std::unexpected(Failure(MOAT_INVALID, text));
}

/// The same, with the number that is wrong: as an Error shows its values.
[[nodiscard]] inline std::unexpected<Failure> invalid(std::string_view text, std::string_view name,
                                                      std::uint64_t value) {
    return invalid(std::string(text).append(" (").append(name).append("=") + hexadecimal(value) +
                   ")");
}

[[nodiscard]] inline std::unexpected<Failure> busy(std::string_view text) {
    return std::unexpected(Failure(MOAT_BUSY, text));
}

/// How long its owner says that a struct is. What follows may be less than the struct of today, so
/// none of these functions looks at its fields as such.
[[nodiscard]] inline std::size_t told_size(const void* given) {
    std::uint32_t size = 0;
    std::memcpy(&size, given, sizeof size);
    return size;
}

/// Whether `error` may be written to; null may, and is not.
[[nodiscard]] inline bool can_hold(const moat_error* error) {
    return error == nullptr || told_size(error) > offsetof(moat_error, text);
}

inline void write(moat_error* error, moat_code code, std::string_view text) noexcept {
    if (error == nullptr)
        return;
    auto* const bytes = reinterpret_cast<char*>(error);
    std::memcpy(bytes + offsetof(moat_error, code), &code, sizeof code);
    char* const to = bytes + offsetof(moat_error, text);
    to[text.copy(to, told_size(error) - offsetof(moat_error, text) - 1)] = '\0';
}

/// The text of an exception that a callback threw in this thread, until a call returns it.
inline thread_local std::array<char, 256> thrown_by_callback{};

/// Calls the caller's callback. An exception becomes the result of the function that caused the
/// call.
template <class Callback>
void call_back(Callback&& callback) noexcept {
    const auto keep = [](std::string_view text) {
        thrown_by_callback[text.copy(thrown_by_callback.data(), thrown_by_callback.size() - 1)] =
            '\0';
    };
    try {
        callback();
    } catch (const std::exception& thrown) {
        keep(*thrown.what() != '\0' ? thrown.what() : "a callback threw an exception");
    } catch (...) {
        keep("a callback threw something that is no std::exception");
    }
}

/// Runs `act`, which returns an Outcome, and writes how it went.
template <class Act>
[[nodiscard]] moat_code enter(moat_error* error, Act&& act) noexcept {
    if (!can_hold(error))
        return MOAT_INVALID;
    const auto fails = [error](moat_code code, std::string_view text) {
        write(error, code, text);
        return code;
    };
    try {
        const Outcome done = act();
        if (const std::array thrown = std::exchange(thrown_by_callback, {}); thrown[0] != '\0')
            return fails(MOAT_INTERNAL, thrown.data());
        if (!done)
            return fails(done.error().code(), done.error().text());
        return fails(MOAT_OK, "");
    } catch (const std::bad_alloc&) {
        return fails(MOAT_NO_MEMORY, "there is no memory left");
    } catch (const std::exception& thrown) {
        return fails(MOAT_INTERNAL, thrown.what());
    } catch (...) {
        return fails(MOAT_INTERNAL, "something was thrown that is no std::exception");
    }
}

/// Takes in a struct that begins with its own size: what its caller does not know keeps the value
/// that `into` has. `first_version` is what the shortest known one has.
template <class Struct>
[[nodiscard]] Outcome take_struct(const Struct* given, std::size_t first_version, Struct& into) {
    const std::size_t size = told_size(given);
    if (size < first_version)
        return invalid("a struct's size is less than any version's: `size` is its sizeof", "size",
                       size);
    const auto* const bytes = reinterpret_cast<const unsigned char*>(given);
    for (std::size_t at = sizeof(Struct); at < size; ++at)
        if (bytes[at] != 0)
            return std::unexpected(
                Failure(MOAT_UNSUPPORTED, "a struct has fields that this library does not know"));
    std::memcpy(&into, bytes, std::min(size, sizeof(Struct)));
    return {};
}

/// Hands out a struct, `size` bytes of it; what this library does not know becomes zeros.
template <class Struct>
[[nodiscard]] Outcome give_struct(Struct from, std::size_t first_version, Struct* to,
                                  std::size_t size) {
    if (size < first_version)
        return invalid("a struct's size is less than any version's: `size` is its sizeof", "size",
                       size);
    from.size = static_cast<std::uint32_t>(size);
    auto* const bytes = reinterpret_cast<unsigned char*>(to);
    std::memcpy(bytes, &from, std::min(size, sizeof(Struct)));
    if (size > sizeof(Struct))
        std::memset(bytes + sizeof(Struct), 0, size - sizeof(Struct));
    return {};
}

} // namespace moat::api::c
