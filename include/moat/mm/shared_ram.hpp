// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SharedRam: pages that several mappings share, also of several address spaces: one frame a page,
// allocated at its first fault from a PhysicalMemory. VMAs map it.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/mm/frame.hpp"
#include "moat/mm/node_policy.hpp"

#include <atomic>
#include <cstdint>
#include <span>

namespace moat::mm {

/// Thread-safe. It holds a reference to each of its frames until clear().
template <SyncPolicy Sync>
class SharedRam {
  public:
    using Slot = typename Sync::template Atomic<std::uint64_t>;

    /// `slots` has one slot a page, all zero. numa_maps prints `name` as the file. Both belong to
    /// the caller and outlive the object.
    explicit SharedRam(std::span<Slot> slots, const char* name = "/dev/zero")
        : slots_(slots), name_(name) {}

    [[nodiscard]] std::uint64_t pages() const { return slots_.size(); }

    [[nodiscard]] const char* name() const { return name_; }

    /// Returns the frame of `page`, with one more reference for the caller; allocates it at first
    /// use. Errors: out_of_range, no_memory. If two threads allocate it at once, the first frame
    /// wins.
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

    /// Drops the reference to each frame; no thread may fault meanwhile. Mapped or pinned frames
    /// stay until they are neither.
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
