// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a VMA maps: RAM of chosen NUMA nodes, RAM that several VMAs share, or a device region.
// PhysicalMemory allocates the frames and owns the regions.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/mm/frame_store.hpp"

#include <atomic>
#include <bit>
#include <cstdint>
#include <span>

namespace moat::mm {

inline constexpr unsigned most_nodes = 32;

/// From which nodes a mapping takes its frames, in the words of set_mempolicy(2).
enum class NodeMode : std::uint8_t {
    standard,   ///< the home node of the address space first, then any
    prefer,     ///< the first node of the set, then any
    bind,       ///< nodes of the set and no others
    interleave, ///< page after page from the nodes of the set in turn, then any
};

struct NodePolicy {
    NodeMode mode = NodeMode::standard;
    std::uint32_t nodes = 0; ///< bit n: node n; not empty unless `standard`

    friend constexpr bool operator==(const NodePolicy&, const NodePolicy&) = default;

    /// The node that is asked first for page number `page`.
    [[nodiscard]] constexpr unsigned first(unsigned home, std::uint64_t page) const {
        if (mode == NodeMode::standard || nodes == 0)
            return home;
        std::uint32_t left = nodes;
        if (mode == NodeMode::interleave)
            for (auto skip = page % static_cast<unsigned>(std::popcount(nodes)); skip != 0; --skip)
                left &= left - 1;
        return static_cast<unsigned>(std::countr_zero(left));
    }

    [[nodiscard]] constexpr bool allows(unsigned node) const {
        return mode != NodeMode::bind || (nodes >> node & 1) != 0;
    }
};

enum class RegionKind : std::uint8_t {
    registers,   ///< no page structs: its leaves are special, and never split
    page_structs ///< a frame for each page, counted like those of RAM
};

/// Physical addresses that are not RAM: a BAR, or device memory with page structs, as DAX has.
template <SyncPolicy Sync>
class DeviceRegion {
  public:
    DeviceRegion() = default;

    DeviceRegion(PhysicalRange range, RegionKind kind, std::span<Frame<Sync>> frames)
        : range_(range), kind_(kind), frames_(frames) {}

    [[nodiscard]] PhysicalRange range() const { return range_; }

    [[nodiscard]] RegionKind kind() const { return kind_; }

    /// The page struct of `address`, which lies in the region; the region has some.
    [[nodiscard]] Frame<Sync>& frame(PhysicalAddress address) const {
        return frames_[(address.value() - range_.start().value()) >> frame_lg2];
    }

    /// Whether accesses fault. A fault tests it under its block's lock, so setting it and then
    /// zapping leaves no leaf behind.
    [[nodiscard]] bool revoked() const { return revoked_.load(std::memory_order_acquire) != 0; }

    void set_revoked(bool revoked) { revoked_.store(revoked ? 1 : 0, std::memory_order_release); }

  private:
    PhysicalRange range_;
    RegionKind kind_ = RegionKind::registers;
    std::span<Frame<Sync>> frames_;
    typename Sync::template Atomic<std::uint8_t> revoked_{0};
};

/// Pages that several mappings share, also of several address spaces: one frame a page, allocated
/// at its first fault. Thread-safe. It holds a reference to each of its frames until clear().
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
