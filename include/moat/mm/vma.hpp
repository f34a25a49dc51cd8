// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Vma: the memory that a range of virtual addresses maps, and how. A value that splits and merges.
// vma_tree.hpp finds VMAs; fault.hpp fills their tables.
#pragma once

#include "moat/core/range.hpp"
#include "moat/mm/backing.hpp"
#include "moat/mm/frame_store.hpp"
#include "moat/page_table/attributes.hpp"

#include <atomic>
#include <cstdint>

namespace moat::mm {

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
