// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The arithmetic of x86-64 with its flags, for emulate. Source: Intel SDM volume 1, 3.4.3.1.
#pragma once

#include <bit>
#include <cstdint>

namespace moat::run::flag {

constexpr std::uint64_t carry = 1U << 0;
constexpr std::uint64_t parity = 1U << 2;
constexpr std::uint64_t adjust = 1U << 4;
constexpr std::uint64_t zero = 1U << 6;
constexpr std::uint64_t sign = 1U << 7;
constexpr std::uint64_t direction = 1U << 10;
constexpr std::uint64_t overflow = 1U << 11;
constexpr std::uint64_t arithmetic = carry | parity | adjust | zero | sign | overflow;

} // namespace moat::run::flag

namespace moat::run {

/// A result of `bits` bits and the arithmetic flags after it.
struct Outcome {
    std::uint64_t value = 0;
    std::uint64_t flags = 0;
};

[[nodiscard]] constexpr std::uint64_t low_bits(std::uint64_t value, unsigned bits) {
    return bits >= 64 ? value : value & ((std::uint64_t{1} << bits) - 1);
}

[[nodiscard]] constexpr std::uint64_t sign_extended(std::uint64_t value, unsigned bits) {
    const unsigned shift = 64 - bits;
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << shift) >> shift);
}

/// `flags` and those that every result sets.
[[nodiscard]] constexpr Outcome outcome(std::uint64_t value, std::uint64_t flags, unsigned bits) {
    value = low_bits(value, bits);
    if (value == 0)
        flags |= flag::zero;
    if ((value >> (bits - 1) & 1) != 0)
        flags |= flag::sign;
    if (std::popcount(value & 0xff) % 2 == 0)
        flags |= flag::parity;
    return {value, flags};
}

/// The flags of an addition or subtraction. `carries`, `overflows`: in the highest bit.
[[nodiscard]] constexpr Outcome summed(std::uint64_t a, std::uint64_t b, std::uint64_t result,
                                       std::uint64_t carries, std::uint64_t overflows,
                                       unsigned bits) {
    std::uint64_t flags = 0;
    if ((carries >> (bits - 1) & 1) != 0)
        flags |= flag::carry;
    if ((overflows >> (bits - 1) & 1) != 0)
        flags |= flag::overflow;
    return outcome(result, flags | ((a ^ b ^ result) & flag::adjust), bits);
}

[[nodiscard]] constexpr Outcome add(std::uint64_t a, std::uint64_t b, bool carry, unsigned bits) {
    const std::uint64_t result = a + b + (carry ? 1 : 0);
    return summed(a, b, result, (a & b) | ((a | b) & ~result), (a ^ result) & (b ^ result), bits);
}

[[nodiscard]] constexpr Outcome subtract(std::uint64_t a, std::uint64_t b, bool borrow,
                                         unsigned bits) {
    const std::uint64_t result = a - b - (borrow ? 1 : 0);
    return summed(a, b, result, (~a & b) | ((~a | b) & result), (a ^ b) & (a ^ result), bits);
}

/// Return: whether a condition of SETcc and CMOVcc holds; `code` is the opcode's low four bits.
[[nodiscard]] constexpr bool holds(unsigned code, std::uint64_t flags) {
    const bool less = ((flags & flag::sign) != 0) != ((flags & flag::overflow) != 0);
    bool result = false;
    switch (code >> 1 & 7) {
    case 0:
        result = (flags & flag::overflow) != 0;
        break;
    case 1:
        result = (flags & flag::carry) != 0;
        break;
    case 2:
        result = (flags & flag::zero) != 0;
        break;
    case 3:
        result = (flags & (flag::carry | flag::zero)) != 0;
        break;
    case 4:
        result = (flags & flag::sign) != 0;
        break;
    case 5:
        result = (flags & flag::parity) != 0;
        break;
    case 6:
        result = less;
        break;
    default:
        result = less || (flags & flag::zero) != 0;
        break;
    }
    return result != ((code & 1) != 0);
}

} // namespace moat::run
