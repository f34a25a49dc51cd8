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
            std::memcmp(kept->data(), label.data(), label.size()) == 0) [[likely]]
            return *kept;
        return keep_slowly(label, recent);
    }

  private:
    [[nodiscard]] std::string_view keep_slowly(std::string_view label,
                                               std::atomic<const std::string*>& recent);

    /// Found by where the caller's characters lie: a driver's labels are literals, mostly.
    std::array<std::atomic<const std::string*>, 64> recent_{};
    std::mutex mutex_;
    std::set<std::string, std::less<>> kept_;
};

} // namespace moat::api
