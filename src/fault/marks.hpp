// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Finds the words that a line of interest has, in one pass over its bytes: most lines of a log have
// none. decode.cpp asks before any decoder runs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace moat::fault {

/// A set of words, found in any case. Shift-and (Baeza-Yates, Gonnet, "A new approach to text
/// searching", 1992): one bit per character, so the words have 64 characters at most.
class Marks {
  public:
    /// `words` are lower case, separated by bars.
    consteval explicit Marks(std::string_view words) {
        unsigned at = 0;
        bool begins = true;
        for (const char each : words) {
            if (each == '|') {
                ends_ |= std::uint64_t{1} << (at - 1);
                begins = true;
                continue;
            }
            if (at == 64)
                throw "the words have 64 characters at most";
            const std::uint64_t bit = std::uint64_t{1} << at++;
            starts_ |= begins ? bit : 0;
            begins = false;
            of_[static_cast<unsigned char>(each)] |= bit;
            if (each >= 'a' && each <= 'z')
                of_[static_cast<unsigned char>(each - 'a' + 'A')] |= bit;
        }
        ends_ |= std::uint64_t{1} << (at - 1);
    }

    /// Whether `text` has one of the words.
    [[nodiscard]] constexpr bool in(std::string_view text) const {
        std::uint64_t state = 0;
        std::uint64_t found = 0;
        for (const char each : text) {
            state = (state << 1 | starts_) & of_[static_cast<unsigned char>(each)];
            found |= state & ends_;
        }
        return found != 0;
    }

  private:
    std::array<std::uint64_t, 256> of_ = {};
    std::uint64_t starts_ = 0;
    std::uint64_t ends_ = 0;
};

/// The words by which a line names an IOMMU.
inline constexpr Marks iommu_marks("iommu|dmar|smmu|amd-vi|vt-d|intr-remap");

/// Beginnings of the marks of all dialects (pattern.hpp): a line without any of them is skipped.
inline constexpr Marks interesting_marks(
    "mmu|d-vi|vt-d|vtd_|fault|vfio|swio|sw-i|dma|eeh:|remap|iova|ss 0x|x ver|@0x");

} // namespace moat::fault
