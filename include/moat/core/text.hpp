// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Core values as std::string and on streams, on a hosted system. No freestanding header includes
// it.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"

#include <array>
#include <cstdint>
#include <ostream>
#include <string>

namespace moat {

[[nodiscard]] inline std::string to_string(const Error& error) {
    std::array<char, 512> line{};
    return {line.data(), error.describe(line)};
}

/// "0x1f000"
[[nodiscard]] inline std::string hexadecimal(std::uint64_t value) {
    std::string digits;
    do {
        digits.insert(digits.begin(), "0123456789abcdef"[value & 0xf]);
        value >>= 4;
    } while (value != 0);
    return "0x" + digits;
}

/// "4K", "2M", "1G": the largest unit without remainder; "17B" for bytes.
[[nodiscard]] inline std::string to_string(ByteCount bytes) {
    constexpr std::array<char, 6> units = {'K', 'M', 'G', 'T', 'P', 'E'};
    std::uint64_t value = bytes.value();
    if (value == 0 || value % 1024 != 0)
        return std::to_string(value) + "B";
    std::size_t unit = 0;
    for (value /= 1024; value % 1024 == 0; value /= 1024)
        ++unit;
    return std::to_string(value) + units[unit];
}

inline std::ostream& operator<<(std::ostream& out, const Error& error) {
    return out << to_string(error);
}

inline std::ostream& operator<<(std::ostream& out, ByteCount bytes) {
    return out << to_string(bytes);
}

template <class Space>
std::ostream& operator<<(std::ostream& out, Address<Space> address) {
    return out << hexadecimal(address.value());
}

/// "[0x1000, +8K)"
template <class Addr>
std::ostream& operator<<(std::ostream& out, const Range<Addr>& range) {
    return out << '[' << range.start() << ", +" << range.size() << ')';
}

} // namespace moat
