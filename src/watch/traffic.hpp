// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Traffic: a recording as the mappings that began and ended, and the faults, in order. It is what a
// policy is replayed on (replay.hpp). The follower decides what the events mean.
#pragma once

#include "moat/core/result.hpp"
#include "moat/fault/diagnose.hpp"

#include "mapping_observer.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace moat::watch {

struct TrafficMapping {
    IovaRange range = {};
    std::uint64_t mapped_ns = 0;
    fault::Allows allows = fault::Allows::read_write;
    /// An allocation that holds traced mappings, which stand for it; or longer than any IOMMU's
    /// addresses.
    bool is_left_out = false;
};

struct TrafficFault {
    fault::Record record = {};
    fault::Kind kind = fault::Kind::never_mapped;
    /// The number of the mapping that the finding names.
    std::optional<std::uint32_t> mapping = {};
};

struct TrafficStep {
    enum class Kind : std::uint8_t { begin, end, fault };

    Kind kind = Kind::begin;
    std::uint32_t number = 0; ///< of the mapping or the fault
    std::uint64_t time_ns = 0;
};

/// What the devices of one IOMMU group did.
struct GroupTraffic {
    std::set<std::string> devices;
    std::vector<TrafficMapping> mappings;
    std::vector<TrafficFault> faults;
    std::vector<TrafficStep> steps; ///< without those of mappings that are left out
};

/// Collects traffic from a follower that it observes. Memory: 56 bytes a mapping.
class Traffic final : public MappingObserver {
  public:
    /// In the order of the groups' first mappings. Call it once, after the last event.
    [[nodiscard]] std::vector<GroupTraffic> finish();

    void began(const GroupMappings& group, const LiveMapping& mapping) override;
    void ended(const GroupMappings& group, const LiveMapping& mapping,
               const fault::Event& unmapped) override;
    void refined(const GroupMappings& group, const LiveMapping& allocation) override;
    void faulted(const GroupMappings& group, const Finding& finding) override;

  private:
    struct Group {
        GroupTraffic traffic;
        /// The latest mapping and the latest allocation of each start; and of each mapping the one
        /// that had its start before.
        std::map<std::uint64_t, std::uint32_t> mappings;
        std::map<std::uint64_t, std::uint32_t> allocations;
        std::vector<std::uint32_t> before;
    };

    [[nodiscard]] Group& group(const GroupMappings& of);
    [[nodiscard]] static std::optional<std::uint32_t> find(const Group& group,
                                                           const fault::Mapping& mapping);

    std::vector<Group> groups_;
    std::unordered_map<const GroupMappings*, std::size_t> numbers_;
};

} // namespace moat::watch
