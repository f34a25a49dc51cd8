// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FrameBlocks: the free frames of one NUMA node, as a buddy system. No lock and no reference
// counts of its own: physical_memory.hpp holds the node's lock around every call.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/mm/frame_store.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace moat::mm {

/// Frames are named by their number from the beginning of RAM, which is aligned to the largest
/// block: so a block of 2^k frames begins at a multiple of 2^k, by number and by address.
template <SyncPolicy Sync>
class FrameBlocks {
  public:
    FrameBlocks() { heads_.fill(none); }

    /// Frames first .. first + count - 1 of `frames` are this node's, and free.
    void set_up(std::span<Frame<Sync>> frames, std::uint32_t first, std::uint32_t count) {
        frames_ = frames.data();
        first_ = first;
        end_ = first + count;
        for (std::uint32_t at = first; at != end_;) {
            unsigned order = at == 0 ? most_order : alignment_lg2(at);
            order = order < most_order ? order : most_order;
            while (bit(order) > end_ - at)
                --order;
            link(at, order);
            at += static_cast<std::uint32_t>(bit(order));
        }
    }

    /// Return: the first frame of 2^order, or nothing.
    [[nodiscard]] std::optional<std::uint32_t> take(unsigned order) {
        unsigned found = order;
        while (found <= most_order && heads_[found] == none)
            ++found;
        if (found > most_order)
            return std::nullopt;
        const std::uint32_t block = heads_[found];
        unlink(block, found);
        while (found-- > order)
            link(block + static_cast<std::uint32_t>(bit(found)), found);
        return block;
    }

    void put(std::uint32_t block, unsigned order) {
        for (; order != most_order; ++order) {
            const auto size = static_cast<std::uint32_t>(bit(order));
            const std::uint32_t buddy = block ^ size;
            if (buddy < first_ || buddy >= end_ || frames_[buddy].free_order != order)
                break;
            unlink(buddy, order);
            block &= ~size;
        }
        link(block, order);
    }

  private:
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    void link(std::uint32_t block, unsigned order) {
        Frame<Sync>& frame = frames_[block];
        frame.free_order = static_cast<std::uint8_t>(order);
        frame.previous = none;
        frame.next = heads_[order];
        if (frame.next != none)
            frames_[frame.next].previous = block;
        heads_[order] = block;
    }

    void unlink(std::uint32_t block, unsigned order) {
        Frame<Sync>& frame = frames_[block];
        frame.free_order = Frame<Sync>::no_order;
        if (frame.previous == none)
            heads_[order] = frame.next;
        else
            frames_[frame.previous].next = frame.next;
        if (frame.next != none)
            frames_[frame.next].previous = frame.previous;
    }

    Frame<Sync>* frames_ = nullptr;
    std::uint32_t first_ = 0;
    std::uint32_t end_ = 0;
    std::array<std::uint32_t, most_order + 1> heads_{};
};

} // namespace moat::mm
