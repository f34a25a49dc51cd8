// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decodes lines of kernel logs, hypervisors, emulators and tracefs into events; counts the lines
// that name an IOMMU and are unknown. Explains nothing. `moat explain` and log followers call it.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/log_event.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::fault {

/// Decodes a log line by line. Never fails: it counts unknown lines, and skips other programs'
/// output within a line. Time is linear in the text; memory is bounded by a few lines. Not
/// thread-safe.
class Decoder {
  public:
    using Sink = FunctionRef<void(const LogEvent&)>;

    /// Longer lines are cut.
    static constexpr std::size_t longest_line = 4096;

    /// Decodes one line, without its end. Passes complete results to `sink`: none, one, or two.
    void line(std::string_view line, Sink sink);

    /// Passes on an incomplete result: at the end of a log, or when a follower has seen no line for
    /// a while.
    void end(Sink sink);

    /// What it read so far.
    [[nodiscard]] const LogCounts& counts() const { return counts_; }

  private:
    /// A fault that needs further lines.
    struct Pending {
        enum class Stage : std::uint8_t { none, intel_reason, smmu_words, smmu_names };

        Stage stage = Stage::none;
        LogEvent decoded = {};
        bool waits = false;
        unsigned noise = 0; ///< unrelated lines since its last line
        unsigned words_read = 0;
        std::array<std::uint64_t, 4> words = {};
    };

    /// Return: whether the line is of use, by itself or to the pending fault.
    [[nodiscard]] bool understands(std::string_view line, Sink sink);
    /// Return: whether the line belongs to the pending fault.
    [[nodiscard]] bool continues(std::string_view line, Sink sink);
    void begin(LogEvent event, std::string_view line, Pending::Stage stage,
               std::optional<std::uint64_t> time_ns, Sink sink);
    void finish(Sink sink);

    Pending pending_;
    std::uint64_t suppressed_ = 0;
    LogCounts counts_;
};

} // namespace moat::fault
