// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Frame: metadata of one 4 KiB page frame of RAM, or of device memory with page structs.
// frame_blocks.hpp keeps the free ones; physical_memory.hpp allocates them.
#pragma once

#include "moat/sync/concept.hpp"

#include <atomic>
#include <cstdint>

namespace moat::mm {

inline constexpr unsigned frame_lg2 = 12;
inline constexpr unsigned pmd_lg2 = 21;
inline constexpr unsigned pud_lg2 = 30;

/// Blocks of frames are 2^0 .. 2^18 of them: up to 1 GiB.
inline constexpr unsigned most_order = pud_lg2 - frame_lg2;

/// 16 bytes. Frames are allocated in blocks. The first frame counts the references to the whole
/// block, which is freed when the last one goes.
template <SyncPolicy Sync>
struct Frame {
    template <class T>
    using Atomic = typename Sync::template Atomic<T>;

    static constexpr std::uint8_t no_order = 0xff;
    static constexpr std::uint8_t dirty = 1;
    static constexpr std::uint8_t anonymous = 2;

    /// Of the whole block: one for each leaf that maps a part of it, one for each pin.
    Atomic<std::uint32_t> references{0};
    /// Of the block in use that begins here, or `no_order`.
    Atomic<std::uint8_t> order{no_order};
    Atomic<std::uint8_t> flags{0};
    std::uint8_t node = 0;
    /// Of the free block that begins here, or `no_order`; with the links, guarded by its node.
    std::uint8_t free_order = no_order;
    std::uint32_t next = 0;
    std::uint32_t previous = 0;
};

} // namespace moat::mm
