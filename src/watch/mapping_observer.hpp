// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MappingObserver: sees how the follower reads a stream of events, as mappings that begin and end.
// traffic.hpp is one.
#pragma once

#include "moat/fault/mapping.hpp"

#include <string_view>

namespace moat::watch {

class GroupMappings;
struct Finding;
struct LiveMapping;

/// Called in the order of events. A group is named by its address, which stays.
class MappingObserver {
  public:
    MappingObserver() = default;
    MappingObserver(const MappingObserver&) = delete;
    MappingObserver& operator=(const MappingObserver&) = delete;
    virtual ~MappingObserver() = default;

    virtual void began(const GroupMappings& group, const LiveMapping& mapping) = 0;
    virtual void ended(const GroupMappings& group, const LiveMapping& mapping,
                       const fault::Event& unmapped) = 0;
    /// `allocation` never was a mapping of its own: it holds one that was traced.
    virtual void refined(const GroupMappings& group, const LiveMapping& allocation) = 0;
    virtual void faulted(const GroupMappings& group, const Finding& finding) = 0;
};

} // namespace moat::watch
