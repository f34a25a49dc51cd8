// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a memory checker in this process (AddressSanitizer, or valgrind's memcheck) does for the DMA
// API: it stops the CPU at bytes that the device owns, knows what is addressable, and sees memory
// freed. Without a checker every function does nothing.
#pragma once

#include "moat/core/types.hpp"
#include "moat/fault/mapping.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace moat::dma {

enum class CpuWatch : std::uint8_t {
    off,
    asan, ///< by the checker that is in the process, if there is one
};

/// Heap memory, as far as the checker knows it.
struct HeapBlock {
    std::uint64_t start = 0;         ///< the CPU's address; 0: not in a heap block
    ByteCount size = {};             ///< as the program asked for it
    fault::StackView allocated = {}; ///< innermost first
};

namespace cpu_watch {

/// Whether a checker is in the process.
[[nodiscard]] bool present();

/// Bytes of a mapping that may not be touched, and the heap block around the first of them or
/// beside it. `block.allocated` lives until the thread's next call.
struct BadMemory {
    std::uint64_t first = 0; ///< the CPU's address of the first such byte
    HeapBlock block = {};
};

/// Return: nothing where every byte (of the first GiB) is addressable, or is kept from the CPU
/// only because another mapping has it.
[[nodiscard]] std::optional<BadMemory> find_inaddressable(std::span<const std::byte> bytes);

/// On return the checker stops the CPU at `bytes`. AddressSanitizer knows memory by 8 bytes: what
/// shares such a unit with bytes outside stays open. Nothing where `watch` is off.
void forbid(CpuWatch watch, std::span<const std::byte> bytes);

/// Undoes `forbid`.
void allow(CpuWatch watch, std::span<const std::byte> bytes);

/// A mapping whose memory is watched. What it refers to outlives the registration.
struct WatchedMapping {
    std::span<const std::byte> memory = {};
    Iova iova = {}; ///< of its first byte
    std::string_view label = {};
    bool device_writes = false;
    /// Called inside free(), before the memory can be used again, by the thread that frees, with no
    /// lock held. On return no device reaches the memory; the mapping is unregistered then.
    void (*freed)(void* context, Iova iova, const HeapBlock& block) noexcept = nullptr;
    void* context = nullptr;
};

/// From the return on `freed` is called, and an error of the checker inside the memory is followed
/// by a line that names the mapping. Any thread; nothing without a checker. Throws std::bad_alloc.
void register_mapping(const WatchedMapping& mapping);

/// Undoes `register_mapping`; nothing where that is undone already. A call of `freed` that runs in
/// another thread may go on: `wait_for_calls`.
void unregister_mapping(std::span<const std::byte> memory, const void* context, Iova iova);

/// On return no call of `freed` with this context runs in another thread.
void wait_for_calls(const void* context);

} // namespace cpu_watch

} // namespace moat::dma
