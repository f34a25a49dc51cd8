// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver's side of a split virtqueue: descriptors and both rings in one page of 4K.
// Source: virtio 1.2, 2.7 "Split Virtqueues".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/concept.hpp"

#include <cstdint>
#include <optional>

namespace moat::iommu::virtio {

/// Not thread-safe; the device uses it meanwhile.
template <TableMemory Memory, SyncPolicy Sync, unsigned Slots = 128>
class Queue {
  public:
    static constexpr unsigned slots = Slots;

    struct Descriptor {
        PhysicalAddress start;
        std::uint32_t bytes;
        bool device_writes;
        std::optional<std::uint16_t> next = {};
    };

    struct Used {
        std::uint32_t head;  ///< as the device says: perhaps no slot
        std::uint32_t bytes; ///< that it wrote, as it says
    };

    /// A zeroed page, which outlives it.
    Queue(Memory& memory, PhysicalAddress page) : memory_(memory), page_(page) {}

    [[nodiscard]] PhysicalAddress descriptors() const { return page_; }

    [[nodiscard]] PhysicalAddress available() const { return page_ + ByteCount(available_at); }

    [[nodiscard]] PhysicalAddress used() const { return page_ + ByteCount(used_at); }

    void describe(unsigned slot, const Descriptor& descriptor) {
        constexpr std::uint64_t has_next = 1;
        constexpr std::uint64_t device_writes = 2;
        const std::uint64_t flags =
            (descriptor.next ? has_next : 0) | (descriptor.device_writes ? device_writes : 0);
        store(2 * slot, descriptor.start.value());
        store(2 * slot + 1,
              descriptor.bytes | flags << 32 | std::uint64_t{descriptor.next.value_or(0)} << 48);
    }

    /// Gives the device the chain that begins at slot `head`.
    void offer(std::uint16_t head) {
        store16(available_at + 4 + 2 * (offered_ % slots), head);
        store16(available_at + 2, ++offered_);
    }

    /// The next chain that the device has used, if there is one.
    [[nodiscard]] std::optional<Used> take() {
        if (static_cast<std::uint16_t>(load(used_at / 8) >> 16) == taken_)
            return std::nullopt;
        // An element of 8 bytes lies across two words.
        const unsigned at = used_at / 8 + taken_++ % slots;
        return Used{static_cast<std::uint32_t>(load(at) >> 32),
                    static_cast<std::uint32_t>(load(at + 1))};
    }

  private:
    static constexpr unsigned available_at = 16 * slots;
    static constexpr unsigned used_at = available_at + 4 * slots;
    static_assert(slots >= 2 && (slots & (slots - 1)) == 0, "indices wrap at a power of two");

    using Ref = typename Sync::template AtomicRef<std::uint64_t>;

    [[nodiscard]] std::uint64_t load(unsigned word) const {
        return Ref(memory_.words(page_)[word]).load(std::memory_order_acquire);
    }

    void store(unsigned word, std::uint64_t value) const {
        Ref(memory_.words(page_)[word]).store(value, std::memory_order_release);
    }

    /// The device only reads the available ring.
    void store16(unsigned byte, std::uint16_t value) const {
        const unsigned shift = byte % 8 * 8;
        const std::uint64_t others = load(byte / 8) & ~(std::uint64_t{0xffff} << shift);
        store(byte / 8, others | std::uint64_t{value} << shift);
    }

    Memory& memory_;
    const PhysicalAddress page_;
    std::uint16_t offered_ = 0;
    std::uint16_t taken_ = 0;
};

} // namespace moat::iommu::virtio
