// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Follower: the mappings of a running kernel's devices, from its events, and a finding for each
// fault. A pure function of the events: no clock, no file. trace/ and recordings feed it.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/diagnose.hpp"

#include "fault/dma_event.hpp"
#include "mapping_observer.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::watch {

/// A fault and what the follower knows of it. Valid during the callback.
struct Finding {
    fault::Diagnosis diagnosis = {};
    std::string_view device = {}; ///< "0000:00:04.0", as the events name it; empty if unknown
    std::string_view driver = {};
    /// If the diagnosis names no mapping: the last one that the device's driver made.
    std::optional<fault::Mapping> last_mapped = {};
    /// What limits the diagnosis, one sentence each: lost events, page granularity.
    std::vector<std::string> notes = {};
};

using FindingSink = FunctionRef<void(const Finding&)>;

/// What a device has mapped now, and did since the first event.
struct DeviceCounts {
    std::string device = {};
    std::string driver = {};
    std::uint64_t live = 0; ///< mappings
    std::uint64_t live_bytes = 0;
    std::uint64_t maps = 0;
    std::uint64_t unmaps = 0;
    std::uint64_t unknown_unmaps = 0; ///< of mappings from before the first event, or lost ones
    std::map<fault::Kind, std::uint64_t> faults = {};
    bool translated = true;
};

struct FollowerOptions {
    /// Past mappings kept for each group of devices: a fault's line may come 20 ms late.
    std::size_t past = 65'536;
    fault::DiagnoseOptions diagnose = {};
    /// Outlives the follower. nullptr: none.
    MappingObserver* observer = nullptr;
};

/// Not thread-safe. Memory: live mappings, `past` ended ones per group, each distinct stack once.
class Follower {
  public:
    explicit Follower(const FollowerOptions& options = {});
    Follower(Follower&&) noexcept;
    Follower& operator=(Follower&&) noexcept;
    ~Follower();

    /// Adds an event; events come in the order of their times. Passes a finding for each fault.
    void add(const fault::DmaEvent& event, FindingSink sink);

    /// By device name.
    [[nodiscard]] std::vector<DeviceCounts> devices() const;

    /// Events that were lost; 1 at least after each loss.
    [[nodiscard]] std::uint64_t lost() const;
    [[nodiscard]] std::uint64_t faults() const;
    /// Faults that interrupted the CPU or were suppressed, and that no line describes.
    [[nodiscard]] std::uint64_t faults_without_line() const;

    /// Maps over a mapping whose unmap was never traced, though nothing was lost.
    [[nodiscard]] std::uint64_t overlaps() const;

    /// The live mappings of a device's group, by address. For tests and recordings.
    void each_live(FunctionRef<void(std::string_view device, const fault::Mapping&)> visit) const;

  private:
    class State;
    std::unique_ptr<State> state_;
};

} // namespace moat::watch
