// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The data that an audit stores on a medium: bytes that differ by case and by place, so that what
// comes back names its origin. No byte has its top bit set, which all canaries have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace moat::audit {

/// Where bytes of a pattern belong.
struct Origin {
    std::uint64_t case_number = 0;
    std::uint64_t at = 0; ///< a byte of the medium
};

/// Words of the medium that differ from a pattern.
struct WrongWords {
    std::uint64_t first = 0; ///< the offset of the first of their bytes
    std::uint64_t bytes = 0; ///< of all of them; 0 if none differs
};

/// The pattern repeats after this many bytes of a medium.
inline constexpr std::uint64_t pattern_period = std::uint64_t{1} << 33;

/// Fills `bytes` with what the case stores from byte `from.at` of the medium on.
void fill_pattern(std::span<std::byte> bytes, Origin from);

/// Compares `bytes` with what fill_pattern would write. Words are 8 bytes, aligned on the medium;
/// those at the ends may be shorter.
[[nodiscard]] WrongWords compare_pattern(std::span<const std::byte> bytes, Origin from);

/// Return: the origin of the first byte, if 8 bytes from one of the first 8 on are a word of a
/// pattern: of a case up to `last_case`, in the first `medium_bytes`. Random bytes have an origin
/// once in 2^16 times at worst, with a million cases and 16 MiB.
[[nodiscard]] std::optional<Origin> origin_of(std::span<const std::byte> bytes,
                                              std::uint64_t last_case, std::uint64_t medium_bytes);

} // namespace moat::audit
