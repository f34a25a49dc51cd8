// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Labels: copies of the callers' labels, each kept once, for as long as the container. The space
// below keeps views of them with living and past mappings.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace moat::api {

/// Thread-safe. A program that makes a new label for each mapping does not fill memory: labels
/// after the first `most` different ones are all kept as one.
class Labels {
  public:
    static constexpr std::size_t most = 1 << 16;
    static constexpr std::string_view too_many = "(too many different labels)";

    /// Return: the same characters with a zero behind them. Throws std::bad_alloc.
    [[nodiscard, gnu::always_inline]] std::string_view keep(std::string_view label) {
        if (label.empty())
            return "";
        const auto at = reinterpret_cast<std::uintptr_t>(label.data());
        std::atomic<const std::string*>& recent = recent_[(at ^ at >> 8) % recent_.size()];
        const std::string* const kept = recent.load(std::memory_order_acquire);
        if (kept != nullptr && kept->size() == label.size() &&
            are_same(kept->data(), label.data(), label.size())) [[likely]]
            return *kept;
        return keep_slowly(label, recent);
    }

  private:
    template <class Word>
    [[nodiscard, gnu::always_inline]] static Word word_at(const char* place) {
        Word word;
        std::memcpy(&word, place, sizeof(word));
        return word;
    }

    /// Compares the first and the last word, which may overlap.
    template <class Word>
    [[nodiscard, gnu::always_inline]] static bool have_same_ends(const char* one, const char* other,
                                                                 std::size_t size) {
        const std::size_t last = size - sizeof(Word);
        const Word first_differs = word_at<Word>(one) ^ word_at<Word>(other);
        return (first_differs | (word_at<Word>(one + last) ^ word_at<Word>(other + last))) == 0;
    }

    /// Of `size` characters each; without a call for 4 to 16.
    [[nodiscard, gnu::always_inline]] static bool are_same(const char* one, const char* other,
                                                           std::size_t size) {
        if (size - 8 <= 8)
            return have_same_ends<std::uint64_t>(one, other, size);
        if (size - 4 < 4)
            return have_same_ends<std::uint32_t>(one, other, size);
        return std::memcmp(one, other, size) == 0;
    }

    [[nodiscard]] std::string_view keep_slowly(std::string_view label,
                                               std::atomic<const std::string*>& recent);

    /// Found by where the caller's characters lie: a driver's labels are literals, mostly.
    std::array<std::atomic<const std::string*>, 64> recent_{};
    std::mutex mutex_;
    std::set<std::string, std::less<>> kept_;
};

} // namespace moat::api
