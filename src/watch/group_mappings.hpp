// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// GroupMappings: the live and past mappings of one IOMMU group, whose devices share addresses, and
// what is uncertain about them. The follower owns one for each group.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/diagnose.hpp"

#include "fault/dma_event.hpp"
#include "mapping_observer.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string_view>

namespace moat::watch {

/// A live mapping. Texts and stacks are the follower's.
struct LiveMapping {
    fault::Mapping mapping = {};
    std::string_view device = {};
    std::string_view call = {};
    std::optional<std::uint64_t> physical = {};
    /// Of whole pages, from the kernel's IOVA allocator: the buffer in it may be shorter.
    bool is_allocation = false;
    /// An unmap was traced that may have been of another mapping.
    bool may_have_ended = false;
};

/// What an unmap ended: a live mapping; one that another event had ended, as the kernel traces some
/// unmaps late and others twice; or one that was never seen.
enum class Ended : std::uint8_t { live, replaced, unknown };

/// Every operation is O(log n). Models fault::LiveMappings.
class GroupMappings {
  public:
    /// `observer`, if any, outlives it.
    explicit GroupMappings(std::size_t past, MappingObserver* observer = nullptr)
        : observer_(observer), past_(past) {}

    /// Adds a mapping. Ends those that it overlaps, whose unmaps are traced late, or were lost with
    /// the events at `last_loss_ns`.
    /// Return: whether it stands for an allocation that was counted as a mapping until now.
    bool map(const LiveMapping& added, std::uint64_t last_loss_ns);
    /// Ends the mapping that starts where `range` does, and those within the rest of `range`: an
    /// IOVA's owner links several mappings into it and ends them at once.
    Ended unmap(const IovaRange& range, const fault::Event& unmapped);
    /// Ends a mapping of `physical`: the oldest of a scatter list, or else the oldest.
    Ended unmap_page(std::uint64_t physical, const fault::Event& unmapped);
    /// Ends the allocation that starts at `start`.
    Ended free(std::uint64_t start, const fault::Event& freed);
    [[nodiscard]] bool has_allocation(std::uint64_t start) const;
    /// Marks the allocation that starts at `start`: it may have ended.
    void doubt_allocation(std::uint64_t start);
    /// Ends every mapping of `device`.
    void remove(std::string_view device, const fault::Event& removed);

    [[nodiscard]] fault::Neighbours around(Iova at, fault::SearchSteps& steps) const;
    [[nodiscard]] fault::Diagnosis diagnose(const fault::Record& record,
                                            const fault::DiagnoseOptions& options);
    /// The live mapping that starts at `start`.
    [[nodiscard]] const LiveMapping* find(std::uint64_t start) const;

    /// Maps over a mapping whose unmap was not traced at all.
    [[nodiscard]] std::uint64_t overlaps() const { return overlaps_; }

    void each_live(FunctionRef<void(const LiveMapping&)> visit) const;

  private:
    using ByStart = std::map<std::uint64_t, LiveMapping>;

    /// An unmap that the kernel has done and not traced yet.
    struct Owed {
        std::uint64_t since_ns = 0;
        std::optional<std::uint64_t> physical = {};
    };

    using OwedUnmaps = std::multimap<std::uint64_t, Owed>;

    static void check_guards(ByStart& mappings, ByStart::iterator added);
    void replace(ByStart& mappings, const LiveMapping& added, std::uint64_t last_loss_ns);
    /// A use after unmap, or what is likelier by the times of the fault and the unmap.
    [[nodiscard]] fault::Diagnosis reconsider(fault::Diagnosis diagnosis,
                                              const fault::DiagnoseOptions& options) const;
    [[nodiscard]] bool refine_allocation(const IovaRange& range);
    [[nodiscard]] bool settle(OwedUnmaps::iterator owed, std::uint64_t now_ns);
    void drop_expired(std::uint64_t now_ns);
    void end(ByStart& mappings, ByStart::iterator at, const fault::Event& unmapped);
    void forget_physical(const LiveMapping& mapping);

    ByStart live_;
    ByStart allocations_; ///< those in which no mapping was traced
    /// The starts of the others, which their mappings describe better.
    std::set<std::uint64_t> refined_;
    std::multimap<std::uint64_t, std::uint64_t> by_physical_; ///< to a start, in the order of maps
    OwedUnmaps owed_;                                         ///< by start
    std::uint64_t overlaps_ = 0;
    MappingObserver* observer_;
    fault::History past_;
};

static_assert(fault::LiveMappings<GroupMappings>);

} // namespace moat::watch
