// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Vma: the memory that a range of virtual addresses maps, and how: RAM of chosen NUMA nodes, RAM
// that several VMAs share, or a device region. A value that splits and merges. vma_tree.hpp finds
// VMAs; PhysicalMemory allocates the frames and owns the regions.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/mm/frame_store.hpp"
#include "moat/page_table/attributes.hpp"

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

enum class VmaKind : std::uint8_t {
    anonymous, ///< RAM of its own: 2 MiB leaves where they fit, otherwise 4 KiB
    huge,      ///< RAM of its own in explicit huge pages of one size
    shared,    ///< RAM that other VMAs may map, too
    device,    ///< a device region: leaves as large as fit, up to 1 GiB
};

/// The argument of map(); the defaults of all but `kind` suit most mappings.
template <SyncPolicy Sync>
struct Mapping {
    VmaKind kind = VmaKind::anonymous;
    Attributes permissions = read_write; ///< of read, write, execute; uncached for devices
    /// No leaf is larger than 2^largest_leaf_lg2 bytes: 21 is "PUD leaves off", 12 pages only. For
    /// `huge` it is the size of its pages, 21 or 30.
    unsigned largest_leaf_lg2 = pud_lg2;
    DeviceRegion<Sync>* region = nullptr; ///< of `device`
    SharedRam<Sync>* shared = nullptr;    ///< of `shared`
    /// Where in the region or the shared RAM the range begins; a multiple of a page.
    ByteCount offset = ByteCount(0);
    NodePolicy nodes = {};
    const char* name = nullptr; ///< "heap", "stack", "file=/dev/..."; lives as long as the VMA

    friend constexpr bool operator==(const Mapping&, const Mapping&) = default;
};

template <SyncPolicy Sync>
struct Vma {
    VirtualRange range;
    Mapping<Sync> mapping;

    /// log2 of the alignment of its ends.
    [[nodiscard]] constexpr unsigned page_lg2() const {
        return mapping.kind == VmaKind::huge ? mapping.largest_leaf_lg2 : frame_lg2;
    }

    /// How far into the region or shared RAM `address` lies.
    [[nodiscard]] constexpr std::uint64_t offset_of(VirtualAddress address) const {
        return mapping.offset.value() + (address.value() - range.start().value());
    }

    /// The physical address of `address` in a device's VMA.
    [[nodiscard]] constexpr PhysicalAddress physical_of(VirtualAddress address) const {
        return mapping.region->range().start() + ByteCount(offset_of(address));
    }

    [[nodiscard]] bool is_special() const {
        return mapping.kind == VmaKind::device && mapping.region->kind() == RegionKind::registers;
    }

    /// The VMA of `part`, which lies in this one.
    [[nodiscard]] constexpr Vma of(VirtualRange part) const {
        Vma vma{part, mapping};
        vma.mapping.offset = has_offset() ? ByteCount(offset_of(part.start())) : ByteCount(0);
        return vma;
    }

    /// Whether `next` starts where this ends, with an equal mapping.
    [[nodiscard]] constexpr bool merges_with(const Vma& next) const {
        return range.last().value() + 1 == next.range.start().value() &&
               next.of(next.range) == Vma{range.hull(next.range), mapping}.of(next.range);
    }

    friend constexpr bool operator==(const Vma&, const Vma&) = default;

  private:
    [[nodiscard]] constexpr bool has_offset() const {
        return mapping.kind == VmaKind::shared || mapping.kind == VmaKind::device;
    }
};

/// A VMA in a tree of an address space. It never changes; a changed VMA is a new one.
template <SyncPolicy Sync>
struct AttachedVma : Vma<Sync> {
    AttachedVma(const Vma<Sync>& vma, std::uint64_t made_by) : Vma<Sync>(vma), update(made_by) {}

    /// Whether it is still in the tree. If it is under the lock of a block of its range, that holds
    /// for leaves of that block until the unlock: see address_space.hpp.
    [[nodiscard]] bool attached() const { return attached_.load(std::memory_order_acquire) != 0; }

    void detach() { attached_.store(0, std::memory_order_release); }

    // For the tree only.
    std::uint64_t update;        ///< the number of the Update that made it
    AttachedVma* next = nullptr; ///< in an Update's list of new or of removed VMAs

  private:
    typename Sync::template Atomic<std::uint8_t> attached_{1};
};

} // namespace moat::mm
