// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Undo records of steps: the old stack of the fiber that moved, and the heap's changed blocks. The
// blocks are found by comparing with a shadow copy, since programs write without notifying. Owned
// by explore/snapshots.hpp.
#pragma once

#include "lab/explore/arena.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace moat::explore {

class Journal {
  public:
    /// Where the records of the next step begin.
    struct Position {
        std::size_t stack = 0;
        std::size_t block = 0;
    };

    explicit Journal(Arena& arena)
        : arena_(arena), shadow_(std::make_unique_for_overwrite<std::byte[]>(Arena::heap_bytes)) {}

    /// Makes the present the earliest state that can be restored.
    void begin() {
        end_ = {};
        std::memcpy(shadow_.get(), arena_.base(), arena_.used());
    }

    [[nodiscard]] Position position() const { return end_; }

    /// Before a step: saves `size` bytes at `from`, the stack of the fiber that will move.
    void save_stack(const std::byte* from, std::size_t size) {
        if (stacks_.size() - end_.stack < size) [[unlikely]]
            stacks_.resize(2 * stacks_.size() + size);
        std::memcpy(stacks_.data() + end_.stack, from, size);
        end_.stack += size;
    }

    /// Restores the stack that was saved at `position`.
    void restore_stack(Position position, std::byte* to, std::size_t size) const {
        std::memcpy(to, stacks_.data() + position.stack, size);
    }

    /// After a step: saves how the changed blocks of the heap from offset `begin` on were.
    void save_heap(std::size_t begin) {
        const std::size_t used = arena_.used();
        for (std::size_t at = begin / block_bytes * block_bytes; at < used; at += block_bytes)
            if (differs(arena_.base() + at, shadow_.get() + at)) [[unlikely]]
                save_block(at);
    }

    /// Restores the heap at `position`, and forgets all records from there on.
    void undo(Position position) {
        while (end_.block != position.block) {
            const Block& block = blocks_[--end_.block];
            std::memcpy(arena_.base() + block.offset, block.bytes, block_bytes);
            std::memcpy(shadow_.get() + block.offset, block.bytes, block_bytes);
        }
        end_ = position;
    }

  private:
    static constexpr std::size_t block_bytes = 64;
    static_assert(Arena::heap_bytes % block_bytes == 0 && Arena::first_byte % block_bytes == 0);

    struct Block {
        std::byte bytes[block_bytes];
        std::size_t offset;
    };

    [[nodiscard]] static bool differs(const std::byte* a, const std::byte* b) {
        std::uint64_t difference = 0;
        for (std::size_t at = 0; at != block_bytes; at += 8) {
            std::uint64_t one = 0;
            std::uint64_t other = 0;
            std::memcpy(&one, a + at, 8);
            std::memcpy(&other, b + at, 8);
            difference |= one ^ other;
        }
        return difference != 0;
    }

    void save_block(std::size_t at) {
        if (end_.block == blocks_.size()) [[unlikely]]
            blocks_.resize(2 * blocks_.size());
        Block& block = blocks_[end_.block++];
        std::memcpy(block.bytes, shadow_.get() + at, block_bytes);
        block.offset = at;
        std::memcpy(shadow_.get() + at, arena_.base() + at, block_bytes);
    }

    Arena& arena_;
    std::unique_ptr<std::byte[]> shadow_;
    std::vector<std::byte> stacks_ = std::vector<std::byte>(std::size_t{1} << 16);
    std::vector<Block> blocks_ = std::vector<Block>(std::size_t{1} << 10);
    Position end_;
};

} // namespace moat::explore
