// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AddressSpace: what the devices of one VFIO container or I/O address space reach: live mappings,
// past ones, maps that failed; and the diagnosis of an access.
#pragma once

#include "moat/fault/diagnose.hpp"

#include "run/vfio_kernel/vfio_kernel.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

namespace moat::run {

/// A map that the program made or tried to make. The stack is kept by a Stacks.
struct MapCall {
    DmaMap map = {};
    fault::Event event = {};
    int error = 0; ///< errno's number, for a map that failed
};

/// Not thread-safe. Models fault::LiveMappings.
class AddressSpace {
  public:
    /// `call.map.range` overlaps no live mapping.
    void map(const MapCall& call);
    void note_failed(const MapCall& call);
    /// Ends the mapping that starts at `start`, if there is one.
    void unmap(Iova start, const fault::Event& unmapped);

    /// The part of an access from `at` on that lies in one mapping which permits it.
    struct Piece {
        std::uint64_t memory = 0; ///< the program's address
        std::uint64_t bytes = 0;  ///< to the end of the mapping
    };

    [[nodiscard]] std::optional<Piece> find(Iova at, fault::Access access) const;

    [[nodiscard]] fault::Diagnosis diagnose(const fault::Record& record);

    /// The latest failed map of `at`, if no later map covered it.
    [[nodiscard]] const MapCall* failed_at(Iova at) const;

    [[nodiscard]] fault::Neighbours around(Iova at, fault::SearchSteps& steps) const;

  private:
    struct Live {
        IovaRange range = {};
        std::uint64_t memory = 0;
        fault::Allows allows = {};
        fault::Event mapped = {};

        [[nodiscard]] fault::Mapping mapping() const {
            return {.range = range, .allows = allows, .mapped = mapped};
        }
    };

    struct Past {
        Live live;
        fault::Event unmapped = {};
    };

    static constexpr std::size_t most_past = 65'536;
    static constexpr std::size_t most_failed = 256;

    std::map<std::uint64_t, Live> live_; ///< by start
    decltype(live_)::node_type spare_;   ///< of the latest unmap, for the next map
    std::deque<MapCall> failed_;
    std::vector<Past> past_;          ///< the latest, a ring
    std::uint64_t unmaps_ = 0;        ///< since the start
    std::uint64_t indexed_ = 0;       ///< how many of these unmaps `index_` has
    fault::History index_{most_past}; ///< of `past_`; diagnosis completes it
};

static_assert(fault::LiveMappings<AddressSpace>);

} // namespace moat::run
