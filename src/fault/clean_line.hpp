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

    /// Of texts that are clean already.
    [[nodiscard]] static CleanLine of_clean(std::string text);

    [[nodiscard]] std::string_view text() const { return text_; }

    /// The same in lower case (ASCII), byte for byte.
    [[nodiscard]] std::string_view lower() const { return lower_; }

    [[nodiscard]] std::string_view body() const;

    /// Whether it ended with the "=" of quoted-printable mail, which is removed: nothing separates
    /// it from the next line.
    [[nodiscard]] bool breaks_softly() const { return breaks_softly_; }

  private:
    CleanLine() = default;

    void finish();

    std::string text_;
    std::string lower_;
    bool breaks_softly_ = false;
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
