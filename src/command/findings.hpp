// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Findings of the follower as text or JSON lines, each distinct one once: `moat watch` and
// `moat replay` print them.
#pragma once

#include "moat/fault/report.hpp"

#include "watch/follower.hpp"

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>

namespace moat::tools {

class Findings {
  public:
    /// What `symbolise` refers to outlives this.
    Findings(bool json, fault::Symbolise symbolise) : json_(json), symbolise_(symbolise) {}

    /// Return: the report and its notes, or a JSON line; empty if an equal report was returned.
    [[nodiscard]] std::string add(const watch::Finding& found);

    /// The line of a note, once for each text; empty for other events.
    [[nodiscard]] std::string add_note(const fault::DmaEvent& event);

    /// "7 times: SUMMARY" of each report that was found again, as lines.
    [[nodiscard]] std::string repeated() const;

    /// Whether it holds neither a fault nor a warning.
    [[nodiscard]] bool empty() const { return times_.empty() && warnings_ == 0; }

  private:
    bool json_;
    fault::Symbolise symbolise_;
    std::map<std::string, std::uint64_t> times_; ///< of each summary
    std::set<std::string> notes_;
    std::uint64_t warnings_ = 0;
};

/// A line of `watched` (docs/report_schema.md).
[[nodiscard]] nlohmann::ordered_json json_of(const watch::DeviceCounts& device);

} // namespace moat::tools
