// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Finds the words that a line of interest has, in one pass over its bytes: most lines of a log have
// none. The decoder and the context ask before they look closer.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace moat::fault {

/// A set of words, found in any case. Shift-and (Baeza-Yates, Gonnet, "A new approach to text
/// searching", 1992): one bit per character, so the words have `Parts` times 64 characters at most,
/// and a word lies within one part.
template <std::size_t Parts = 1>
class Marks {
  public:
    /// `words` are lower case, separated by bars.
    consteval explicit Marks(std::string_view words) {
        std::size_t part = 0;
        unsigned at = 0;
        while (!words.empty()) {
            const std::size_t size =
                words.find('|') < words.size() ? words.find('|') : words.size();
            if (at + size > 64) {
                ++part;
                at = 0;
            }
            add(words.substr(0, size), part, at);
            at += static_cast<unsigned>(size);
            words.remove_prefix(size < words.size() ? size + 1 : size);
        }
    }

    /// Whether `text` has one of the words.
    [[nodiscard]] constexpr bool in(std::string_view text) const {
        Bits state = {};
        Bits found = {};
        for (const char each : text)
            for (std::size_t part = 0; part != Parts; ++part) {
                state[part] = (state[part] << 1 | starts_[part]) &
                              of_[static_cast<unsigned char>(each)][part];
                found[part] |= state[part] & ends_[part];
            }
        std::uint64_t all = 0;
        for (const std::uint64_t each : found)
            all |= each;
        return all != 0;
    }

  private:
    using Bits = std::array<std::uint64_t, Parts>;

    consteval void add(std::string_view word, std::size_t part, unsigned at) {
        if (part >= Parts || word.empty())
            throw "too many characters for the parts, or an empty word";
        starts_[part] |= std::uint64_t{1} << at;
        for (const char each : word) {
            const std::uint64_t bit = std::uint64_t{1} << at++;
            of_[static_cast<unsigned char>(each)][part] |= bit;
            if (each >= 'a' && each <= 'z')
                of_[static_cast<unsigned char>(each - 'a' + 'A')][part] |= bit;
        }
        ends_[part] |= std::uint64_t{1} << (at - 1);
    }

    std::array<Bits, 256> of_ = {};
    Bits starts_ = {};
    Bits ends_ = {};
};

/// The words by which a line names an IOMMU.
inline constexpr Marks<> iommu_marks("iommu|dmar|smmu|amd-vi|vt-d|intr-remap");

/// Parts of the marks of all dialects (pattern.hpp): a line without any of them is skipped.
inline constexpr Marks<> interesting_marks(
    "mmu|d-vi|vt-d|vtd_|faul|vfi|swio|sw-i|dma|eeh|-rem|iova|'t r|ss 0x|x v|@0x|c-e");

/// Parts of what a kernel's line tells beside the faults (log_context.cpp).
inline constexpr Marks<2>
    context_marks("[mem 0x|r at 0x|nd exit|m sleep|nslatio|v table|ink down|hc died|me dead|"
                  "not presen|will res|t contro|ter rese|(disca|fstri|f-tree|] ioap");

} // namespace moat::fault
