// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tally: the counts of a run. Each process has a page of its own in a file of the command's folder,
// so counting needs no locked instruction; the counts of a process that was killed are kept.
#pragma once

#include "platform/memory_file.hpp"

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace moat::run {

/// A count that threads add to under one lock, and read without it.
class Count {
  public:
    // NOLINTNEXTLINE(google-explicit-constructor): it is a number
    operator std::uint64_t() const { return shared().load(std::memory_order_relaxed); }

    void operator+=(std::uint64_t more) { shared().store(*this + more, std::memory_order_relaxed); }

    void operator-=(std::uint64_t less) { *this += -less; }

    void operator++() { *this += 1; }

  private:
    [[nodiscard]] std::atomic_ref<std::uint64_t> shared() const { return std::atomic_ref(value_); }

    mutable std::uint64_t value_ = 0; ///< atomic_ref takes no constant
};

struct Tally {
    Count findings;
    Count maps;
    Count live; ///< a sum of live_map of each live mapping
    Count register_accesses;
    Count device_reads; ///< accesses to the program's memory
    Count device_writes;
    Count interrupts;
    Count misdeeds; ///< injections that took place
    Count opens;    ///< of devices
    Count untaken;  ///< interrupts that were enabled, sent and never taken

    /// One mapping of `bytes` in `live`: pages below bit 40, and one above.
    [[nodiscard]] static constexpr std::uint64_t live_map(std::uint64_t bytes) {
        return std::uint64_t{1} << 40 | bytes >> 12;
    }

    [[nodiscard]] std::uint64_t live_maps() const { return live >> 40; }

    [[nodiscard]] std::uint64_t live_bytes() const { return live << 24 >> 12; }

    Tally& operator+=(const Tally& other);
};

/// A file in the folder of `moat run`.
inline constexpr std::string_view tally_file = "tally";

/// A Tally of this process in the folder's file; outside of it if the file cannot be used.
class OwnTally {
  public:
    /// Appends a page to the file, which exists. An empty folder has none.
    explicit OwnTally(const std::string& folder);

    [[nodiscard]] Tally& get();

  private:
    std::optional<platform::Mapping> page_;
    Tally alone_ = {};
};

/// The sum of all pages of the folder's file.
[[nodiscard]] Tally total_tally(const std::string& folder);

} // namespace moat::run
