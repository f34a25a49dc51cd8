// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Undo records of steps: the old stack of the fiber that moved, and the heap's changed blocks. The
// blocks are found by comparing with a shadow copy, since programs write without notifying. Owned
// by explore/machine.hpp.
#pragma once

#include "lab/explore/arena.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace moat::explore {

class Journal {
  public:
    explicit Journal(Arena& arena)
        : arena_(arena), shadow_(std::make_unique_for_overwrite<std::byte[]>(Arena::heap_bytes)) {}

    /// Makes the present the earliest state that can be restored.
    void begin() {
        bytes_used_ = 0;
        std::memcpy(shadow_.get(), arena_.base(), arena_.used());
    }

    /// Where the next step's records begin; pass it to `undo`.
    [[nodiscard]] std::size_t position() const { return bytes_used_; }

    /// Before a step: saves `size` bytes at `from`, the stack of the fiber that will move.
    void save_stack(const std::byte* from, std::size_t size) {
        append(from, size);
        append_head(arena_.offset_of(from), size);
    }

    /// After a step: saves how the changed blocks of the heap from offset `begin` on were.
    void save_heap(std::size_t begin) {
        const std::size_t used = arena_.used();
        for (std::size_t at = begin / block_bytes * block_bytes; at < used; at += block_bytes) {
            const std::byte* const now = arena_.base() + at;
            std::byte* const before = shadow_.get() + at;
            if (!differs(now, before)) [[likely]]
                continue;
            append(before, block_bytes);
            append_head(at, block_bytes);
            std::memcpy(before, now, block_bytes);
        }
    }

    /// Restores the state at which `position()` returned `position`.
    void undo(std::size_t position) {
        while (bytes_used_ != position) {
            Head head;
            bytes_used_ -= sizeof head;
            std::memcpy(&head, bytes_.data() + bytes_used_, sizeof head);
            bytes_used_ -= head.size;
            const std::byte* const from = bytes_.data() + bytes_used_;
            std::memcpy(arena_.base() + head.offset, from, head.size);
            if (head.offset < Arena::heap_bytes)
                std::memcpy(shadow_.get() + head.offset, from, head.size);
        }
    }

  private:
    static constexpr std::size_t block_bytes = 64;
    static_assert(Arena::heap_bytes % block_bytes == 0);

    [[nodiscard]] static bool differs(const std::byte* a, const std::byte* b) {
        std::array<std::uint64_t, block_bytes / 8> words;
        std::array<std::uint64_t, block_bytes / 8> others;
        std::memcpy(words.data(), a, block_bytes);
        std::memcpy(others.data(), b, block_bytes);
        std::uint64_t difference = 0;
        for (std::size_t i = 0; i != words.size(); ++i)
            difference |= words[i] ^ others[i];
        return difference != 0;
    }

    /// Follows its bytes, so that records are read from the last to the first.
    struct Head {
        std::uint32_t offset = 0;
        std::uint32_t size = 0;
    };

    void append(const std::byte* from, std::size_t size) {
        if (bytes_.size() - bytes_used_ < size + sizeof(Head)) [[unlikely]]
            bytes_.resize(2 * bytes_.size() + size + sizeof(Head));
        std::memcpy(bytes_.data() + bytes_used_, from, size);
        bytes_used_ += size;
    }

    void append_head(std::size_t offset, std::size_t size) {
        const Head head = {static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(size)};
        std::memcpy(bytes_.data() + bytes_used_, &head, sizeof head);
        bytes_used_ += sizeof head;
    }

    Arena& arena_;
    std::unique_ptr<std::byte[]> shadow_;
    std::vector<std::byte> bytes_ = std::vector<std::byte>(std::size_t{1} << 16);
    std::size_t bytes_used_ = 0;
};

} // namespace moat::explore
