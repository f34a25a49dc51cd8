// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The mappings from a log's tracefs events, against which `moat explain` diagnoses its faults.
#pragma once

#include "moat/fault/decode.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/mapping.hpp"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace moat::tools {

/// The mappings so far. Events of the iommu system name no device, so this cannot distinguish
/// domains: a mapping that overlaps another replaces it.
class TracedMappings {
  public:
    /// Adds or ends a mapping; skips other events.
    void add(const fault::LogEvent& event);

    /// Whether `event` is a fault with an address, after at least one mapping.
    [[nodiscard]] bool knows(const fault::LogEvent& event) const {
        return any_ && event.kind == fault::LogEvent::Kind::fault &&
               event.record.precision != fault::Precision::none;
    }

    [[nodiscard]] fault::Diagnosis diagnose(const fault::Record& record);

  private:
    void map(const fault::LogEvent& event);
    std::vector<fault::Mapping> erase_overlapping(IovaRange range);

    std::map<std::uint64_t, fault::Mapping> live_;
    std::vector<fault::Mapping> sorted_; ///< of `live_`, if it did not change since
    bool changed_ = false;
    fault::History history_{1U << 20};
    std::set<std::string> labels_;
    bool any_ = false;
};

} // namespace moat::tools
