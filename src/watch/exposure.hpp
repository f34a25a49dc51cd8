// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ExposureMeter: what the addresses of mappings, the recorded ones or those of a policy, leave
// unseen. replay.cpp feeds it.
#pragma once

#include "moat/fault/mapping.hpp"

#include "replay.hpp"

#include <cstdint>
#include <map>
#include <vector>

namespace moat::watch {

/// Models fault::LiveMappings, of whole pages. `traffic` outlives it.
class ExposureMeter {
  public:
    ExposureMeter(const GroupTraffic& traffic, const Policy& policy);

    /// The mapping `number` begins at `range`.
    void begin(std::uint32_t number, const IovaRange& range, std::uint64_t time_ns);
    void end(std::uint32_t number, std::uint64_t time_ns);
    /// Does not judge a fault without a mapping, nor one that a live mapping allows.
    void fault(const TrafficFault& fault);

    [[nodiscard]] Exposure finish();

    [[nodiscard]] fault::Neighbours around(Iova at, fault::SearchSteps& steps) const;

  private:
    struct Touched {
        bool before = false;
        bool after = false;
    };

    [[nodiscard]] fault::Mapping mapping_of(std::uint32_t number) const;
    void note_neighbours(std::uint32_t number, const IovaRange& range);
    void note_reuse(const IovaRange& range, std::uint64_t time_ns);
    [[nodiscard]] bool is_refused(const fault::Record& record) const;

    const GroupTraffic& traffic_;
    Policy policy_;
    Exposure exposure_;
    std::vector<IovaRange> ranges_;               ///< of each mapping that began
    std::vector<Touched> touched_;                ///< by a live neighbour, at any time
    std::map<std::uint64_t, std::uint32_t> live_; ///< by start
    fault::History past_;
    std::vector<std::uint64_t> after_;
    std::vector<std::uint64_t> before_;
    std::vector<std::uint64_t> reused_unmaps_;
    std::vector<std::uint64_t> reused_ns_;
};

static_assert(fault::LiveMappings<ExposureMeter>);

} // namespace moat::watch
