// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver's misuse of the DMA API, and the listener that gets reports of it and of faults.
// space.hpp finds it from level `track` on; `not_invalidated` at every level.
#pragma once

#include "moat/core/range.hpp"
#include "moat/fault/diagnose.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace moat::dma {

enum class DriverErrorKind : std::uint8_t {
    not_mapped, ///< an unmap or sync of an address where no mapping begins: often a second unmap
    wrong_size, ///< another size than was mapped
    wrong_direction, ///< another direction than was mapped
    outside,         ///< a sync beyond its mapping
    cpu_wrote,       ///< the CPU changed a buffer that the device owned
    red_zone,        ///< something wrote beside the buffer, in its page
    leak,            ///< still mapped when its space ended
    missing_sync,    ///< given to the device with bytes of its own that the CPU never took
    double_mapping,  ///< the same memory is mapped twice, and a device may write it
    not_addressable, ///< memory that the program may not access, according to AddressSanitizer
    freed,           ///< the memory of a mapping was freed; no device reaches it any more
    not_invalidated, ///< unmapped, but devices may still reach it: the invalidation failed
};

[[nodiscard]] constexpr std::string_view name(DriverErrorKind kind) {
    constexpr std::array<std::string_view, 12> names = {"not-mapped",
                                                        "wrong-size",
                                                        "wrong-direction",
                                                        "sync-outside",
                                                        "cpu-wrote",
                                                        "red-zone",
                                                        "leak",
                                                        "missing-sync",
                                                        "double-mapping",
                                                        "not-addressable",
                                                        "freed-while-mapped",
                                                        "not-invalidated"};
    return names[static_cast<std::size_t>(kind)];
}

/// Heap memory, as far as a memory checker in the process knows it.
struct HeapBlock {
    std::uint64_t start = 0;         ///< the CPU's address; 0: not in a heap block
    ByteCount size = {};             ///< as requested from the allocator
    fault::StackView allocated = {}; ///< innermost first
};

struct DriverError {
    DriverErrorKind kind = DriverErrorKind::not_mapped;
    /// The range of the call; for `cpu_wrote`, `red_zone` and `missing_sync` the changed bytes, as
    /// device addresses.
    IovaRange range = {};
    /// The mapping at that range, or the one that the call named; its range is empty if there is
    /// none.
    fault::Mapping mapping = {};
    /// Of `not_mapped`: the latest mapping there.
    std::optional<fault::PastMapping> past = {};
    /// Of `double_mapping`: the earlier mapping.
    std::optional<fault::Mapping> other = {};
    /// Of `not_addressable` and `freed`: the CPU's memory, as far as it is known. The stack is
    /// valid during the listener's call.
    HeapBlock block = {};
    /// Of the same: the mapping's memory.
    std::span<const std::byte> memory = {};
    /// Of `freed`: when, and the stack of the free.
    fault::Event when = {};
};

/// One line: 'wrong-size: [0x1000, +4K) of "command queue" [0x1000, +8K)'.
[[nodiscard]] std::string summary(const DriverError& error);

/// Called on the thread that finds something, at the end of the operation and without a lock of the
/// space: it may map and unmap. It does not throw, since a device's thread or free() may call it.
/// What `context` points to outlives the space.
struct Listener {
    void (*fault)(void* context, const fault::Diagnosis& diagnosis) noexcept = nullptr;
    void (*driver_error)(void* context, const DriverError& error) noexcept = nullptr;
    void* context = nullptr;
};

} // namespace moat::dma
