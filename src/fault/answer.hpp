// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The answer to a log: what happened, whether it matters, why, and what to do; as text for people
// or as JSON (docs/report_schema.md). Pure functions of groups and context.
#pragma once

#include "moat/fault/report.hpp"

#include "known_cause.hpp"

#include <cstdint>
#include <string>

namespace moat::fault {

/// A group in a few lines, of which the first says what happened. Ends with a newline. No text of a
/// log reaches the terminal's control characters.
[[nodiscard]] std::string text_answer(const LogGroup& group, const LogContext& context,
                                      Colour colour);

/// The same as one line of JSON, without a newline.
[[nodiscard]] std::string json_answer(const LogGroup& group, const LogContext& context);

/// "00:12.0 (nvme) wrote page 0x0, 12 times from 3.1 s to 3.4 s (about 40/s)".
[[nodiscard]] std::string what_happened(const LogGroup& group, const LogContext& context);

/// The cause's next step, for the event's device.
[[nodiscard]] std::string next_step(const KnownCause& cause, const LogEvent& event);

/// What is special about the first address: "x86 interrupt messages", "a BAR of 0000:03:00.0";
/// empty if nothing is known.
[[nodiscard]] std::string what_lies_there(const LogGroup& group, const LogContext& context);

/// `text` with '?' for control characters, so that no text of a log controls the terminal.
[[nodiscard]] std::string printable(std::string text);

/// "2,481".
[[nodiscard]] std::string with_commas(std::uint64_t number);

} // namespace moat::fault
