// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The memory checker in this process (AddressSanitizer, or valgrind's memcheck): it stops the CPU
// at bytes that the device owns, knows which memory is addressable, and notices frees. Without a
// checker every function does nothing.
#pragma once

#include "moat/core/types.hpp"
#include "moat/dma/driver_error.hpp"
#include "moat/dma/options.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace moat::dma {

namespace cpu_watch {

/// Whether a checker is in the process.
[[nodiscard]] bool present();

/// Inaddressable bytes of a mapping, and the heap block around or beside the first of them.
/// `block.allocated` is valid until the thread's next call.
struct BadMemory {
    std::uint64_t first = 0; ///< the CPU's address of the first one
    HeapBlock block = {};
};

/// Return: nothing if every byte (of the first GiB) is addressable, or forbidden only because
/// another mapping owns it.
[[nodiscard]] std::optional<BadMemory> find_inaddressable(std::span<const std::byte> bytes);

/// On return the checker stops the CPU at `bytes`. AddressSanitizer checks units of 8 bytes: units
/// that extend beyond `bytes` stay accessible. No effect if `watch` is off.
void forbid(CpuWatch watch, std::span<const std::byte> bytes);

/// Undoes `forbid`.
void allow(CpuWatch watch, std::span<const std::byte> bytes);

/// A mapping with watched memory. What it refers to outlives the registration.
struct WatchedMapping {
    std::span<const std::byte> memory = {};
    Iova iova = {}; ///< of its first byte
    std::string_view label = {};
    bool device_writes = false;
    /// Called inside free() by the freeing thread, without a lock, before the memory can be reused.
    /// On return no device reaches the memory; the mapping is unregistered then.
    void (*freed)(const WatchedMapping& mapping, const HeapBlock& block) noexcept = nullptr;
    void* context = nullptr;
    void* buffer = nullptr; ///< the context's
};

/// Makes free() call `freed` from now on, and appends a line that names the mapping to the
/// checker's errors in its memory. Any thread; no effect without a checker. Throws std::bad_alloc.
void register_mapping(const WatchedMapping& mapping);

/// Undoes `register_mapping`, once. A call of `freed` in another thread may continue: see
/// `wait_for_calls`.
void unregister_mapping(std::span<const std::byte> memory, const void* context, Iova iova);

/// On return no other thread runs a call of `freed` with this context.
void wait_for_calls(const void* context);

} // namespace cpu_watch

} // namespace moat::dma
