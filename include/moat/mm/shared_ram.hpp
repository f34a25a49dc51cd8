// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SharedRam: pages that several mappings, also of several address spaces, show: one frame a page,
// made at its first fault. The mapping of it is a VMA; frames come from a PhysicalMemory.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/mm/frame.hpp"
#include "moat/mm/node_policy.hpp"

#include <atomic>
#include <cstdint>
#include <span>

namespace moat::mm {

/// Thread-safe. It holds a reference to each of its frames, and gives them up in clear().
template <SyncPolicy Sync>
class SharedRam {
  public:
    using Slot = typename Sync::template Atomic<std::uint64_t>;

    /// One slot a page, all zero; the caller's, and as long as the object. `name` is what numa_maps
    /// prints as the file, and is kept as long, too.
    explicit SharedRam(std::span<Slot> slots, const char* name = "/dev/zero")
        : slots_(slots), name_(name) {}

    [[nodiscard]] std::uint64_t pages() const { return slots_.size(); }

    [[nodiscard]] const char* name() const { return name_; }

    /// The frame of `page`, made now if it is not there, with one more reference for the caller.
    /// Errors: out_of_range, no_memory. The first frame of a page wins where two threads ask at
    /// once.
    template <class Memory>
    [[nodiscard]] Result<PhysicalAddress> hold_frame(Memory& memory, std::uint64_t page,
                                                     const NodePolicy& policy, unsigned home) {
        if (page >= slots_.size()) [[unlikely]]
            return fail(ErrorCode::out_of_range, "the shared RAM has no such page", {"page", page},
                        {"pages", slots_.size()});
        std::uint64_t frame = slots_[page].load(std::memory_order_acquire);
        if (frame == 0) {
            const Result<PhysicalAddress> fresh = memory.take(0, policy, page, home);
            if (!fresh)
                return fresh;
            if (slots_[page].compare_exchange_strong(
                    frame, fresh->value(), std::memory_order_acq_rel, std::memory_order_acquire))
                frame = fresh->value();
            else
                memory.drop(*fresh);
        }
        memory.hold(PhysicalAddress(frame));
        return PhysicalAddress(frame);
    }

    /// Gives all frames up; nobody faults meanwhile. Frames that are mapped or pinned stay until
    /// they are neither.
    template <class Memory>
    void clear(Memory& memory) {
        for (Slot& slot : slots_)
            if (const std::uint64_t frame = slot.exchange(0, std::memory_order_acq_rel))
                memory.drop(PhysicalAddress(frame));
    }

  private:
    std::span<Slot> slots_;
    const char* name_;
};

} // namespace moat::mm
