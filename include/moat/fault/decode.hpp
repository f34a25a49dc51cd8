// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decodes lines of kernel logs, hypervisors, emulators and tracefs into events; counts the lines
// that name an IOMMU and are unknown. Explains nothing. `moat explain` and log followers call it.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/log_event.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace moat::fault {

class CleanLine;
struct Found;

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
    /// An event that further lines may complete.
    struct Pending {
        LogEvent event = {};
        std::uint8_t message = 0; ///< which lines continue it
        bool waits = false;
        unsigned noise = 0; ///< unrelated lines since its last line
    };

    /// A line that was unknown, or ended within a pattern: the next one may continue it.
    struct Carry {
        std::string text;
        std::uint64_t number = 0;
        unsigned lines = 0;    ///< 0: none
        std::size_t facts = 0; ///< how many it gave by itself; 0: it was unknown
        bool names_iommu = false;
        bool breaks_softly = false; ///< nothing separates it from the next line
        bool is_whole = false;      ///< only a match with more facts is better
    };

    /// A line that may be of interest, without colours and quotes.
    void interesting(std::string_view line, bool marked, Sink sink);
    /// Return: whether the carried text and `line` are one event together.
    [[nodiscard]] bool joins(const CleanLine& line, Sink sink);
    /// Whether the carried line and `line`, which is lower case, gave more together.
    [[nodiscard]] bool reads_more(const Found& joined, std::string_view line) const;
    /// A line without the mark of a dialect. Return: whether it continues the pending event.
    [[nodiscard]] bool continues(const CleanLine& line, Sink sink);
    /// Takes back what the carried line gave: the joined line gives it again.
    void forget_carried();
    void give_up_carry();
    void take(const Found& found, std::string_view line, std::uint64_t number, Sink sink);
    void finish(Sink sink);

    Pending pending_;
    Pending before_carry_; ///< the pending event without the carried line
    Carry carry_;
    std::uint64_t suppressed_ = 0;
    LogCounts counts_;
};

} // namespace moat::fault
