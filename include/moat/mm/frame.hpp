// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Frame: what is known about one 4 KiB page frame of RAM, or of device memory with page structs.
// Where frames come from is frame_blocks.hpp; who asks for them is physical_memory.hpp.
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

/// 16 bytes. Frames come in blocks, and a block is counted as a whole at its first frame: it goes
/// back when nothing refers to any part of it.
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
