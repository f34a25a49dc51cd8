// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// IovaProbes: records of probes on the kernel's IOVA allocator -> allocations and frees. Links the
// entry and the return of a call, and the allocator of a freed range to its device.
#pragma once

#include "event_catalog.hpp"
#include "fault/dma_event.hpp"
#include "iova_owners.hpp"
#include "record_fields.hpp"
#include "time_order.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moat::watch {

/// The callers of a probed function: what lies above the frames of the probe itself. The whole
/// stack of another event.
[[nodiscard]] fault::StackView callers_of(fault::StackView stack, const RecordFields& fields);

/// The views of its events are valid until the next call.
class IovaProbes {
  public:
    /// The start of a call that allocates; its return is another record (kprobes).
    void call(const TracedRecord& record, const EventFormat& format);

    /// The allocation that returned; nothing if it failed, or without its call.
    [[nodiscard]] std::optional<fault::DmaEvent>
    allocate(const TracedRecord& record, const EventFormat& format, fault::DmaEvent common);

    /// The free; nothing from a record without its fields.
    [[nodiscard]] std::optional<fault::DmaEvent>
    free(const TracedRecord& record, const EventFormat& format, fault::DmaEvent common);

  private:
    struct Call {
        std::uint64_t context = 0;
        std::string device = {};
        std::uint64_t size = 0;
        std::vector<std::uintptr_t> stack = {};
    };

    std::vector<Call> calls_; ///< that did not return, the latest last
    IovaOwners owners_;
    Call returned_;
};

} // namespace moat::watch
