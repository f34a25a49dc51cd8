// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Block: a Buffer's memory, which its mappings share. buffer.cpp allocates and frees it.
#pragma once

#include "moat/moat.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace moat::api {

/// Who derives from it has the memory, and frees it.
class Block {
  public:
    explicit Block(Link from) : home(from) {}

    virtual ~Block() = default;
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    std::atomic<std::uint64_t> shares{1};
    /// Whose mappings may leave it reachable until a flush: the container that allocated it.
    const Link home;
    std::atomic<bool> unflushed{false};

    /// Return: `block`, with one share more; nullptr stays.
    static Block* share(Block* block) {
        if (block != nullptr)
            block->shares.fetch_add(1, std::memory_order_relaxed);
        return block;
    }

    /// Drops a share of `block`, and frees it with the last one; nullptr: nothing to drop.
    [[gnu::always_inline]] static void drop(Block* block) {
        if (block != nullptr && block->shares.fetch_sub(1, std::memory_order_acq_rel) == 1)
            [[unlikely]]
            end(block);
    }

  private:
    static void end(Block* block);
};

/// What a mapping through `core` of memory that `share` keeps leaves behind, after its unmap.
void leave_behind(Core& core, BlockShare& share, const Result<void>& unmapped);

} // namespace moat::api
