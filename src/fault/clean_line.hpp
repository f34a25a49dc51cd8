// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A line as a program printed it: without colours, quote marks, carriage returns and typographic
// characters. Log prefixes stay; time_before() reads their times.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace moat::fault {

class CleanLine {
  public:
    explicit CleanLine(std::string_view line);

    [[nodiscard]] std::string_view text() const { return text_; }

    /// The same in lower case (ASCII), byte for byte.
    [[nodiscard]] std::string_view lower() const { return lower_; }

    [[nodiscard]] std::string_view body() const;

  private:
    std::string text_;
    std::string lower_;
};

/// What follows the prefix of the log: "Nov 21 00:46:01 host kernel: [   11.236557] ", "<4>".
[[nodiscard]] std::string_view body_of(std::string_view text);

struct LineTime {
    std::optional<std::uint64_t> monotonic_ns;
    std::optional<std::uint32_t> second_of_day;
};

/// The time in the prefix of a log: "[   11.231663]"; /dev/kmsg's "6,1234,11231663,-;"; the last
/// "00:46:01" of a date in any language.
[[nodiscard]] LineTime time_before(std::string_view head);

} // namespace moat::fault
