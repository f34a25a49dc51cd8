// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a driver does wrong with the DMA API itself, and who is told of that and of faults.
// Found by space.hpp from level `track` on; `not_invalidated` at every level.
#pragma once

#include "moat/core/range.hpp"
#include "moat/dma/detail/cpu_watch.hpp"
#include "moat/fault/diagnosis.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace moat::dma {

enum class DriverErrorKind : std::uint8_t {
    not_mapped,      ///< an unmap or sync of what no mapping begins at: a second unmap, mostly
    wrong_size,      ///< of another size than was mapped
    wrong_direction, ///< with another direction than was mapped
    outside,         ///< a sync that leaves its mapping
    cpu_wrote,       ///< the CPU changed a buffer while it was the device's
    red_zone,        ///< something wrote beside the buffer, inside its page
    leak,            ///< still mapped when its space ended
    missing_sync,    ///< returned to the device with bytes that the CPU never took
    double_mapping,  ///< memory that another mapping has, where the device may write it
    not_addressable, ///< maps memory that the program may not touch, as AddressSanitizer knows
    freed,           ///< the memory of a living mapping was freed; no device reaches it any more
    not_invalidated, ///< unmapped, but a device may still reach it: the invalidation failed
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

struct DriverError {
    DriverErrorKind kind = DriverErrorKind::not_mapped;
    /// What the call named; for `cpu_wrote`, `red_zone` and `missing_sync` the bytes that were
    /// changed, as the device sees them.
    IovaRange range = {};
    /// The mapping that lives there, or that it was about; its range is empty where there is none.
    fault::Mapping mapping = {};
    /// Of `not_mapped`: the mapping that was there last.
    std::optional<fault::PastMapping> past = {};
    /// Of `double_mapping`: the one that was there before.
    std::optional<fault::Mapping> other = {};
    /// Of `not_addressable` and `freed`: what the CPU's memory is, as far as it is known. The stack
    /// lives as long as the call of the listener.
    HeapBlock block = {};
    /// Of the same: what the mapping named.
    std::span<const std::byte> memory = {};
    /// Of `freed`: who freed the memory, and when.
    fault::Event when = {};
};

/// One line: 'wrong-size: [0x1000, +4K) of "command queue" [0x1000, +8K)'.
[[nodiscard]] std::string summary(const DriverError& error);

/// Called as soon as something is found, on the thread that found it, with no lock of the space
/// held: it may map and unmap. The call comes last, when the operation is done. A listener does not
/// throw, since a device's thread or free() may call it. What `context` points to outlives the
/// space.
struct Listener {
    void (*fault)(void* context, const fault::Diagnosis& diagnosis) noexcept = nullptr;
    void (*driver_error)(void* context, const DriverError& error) noexcept = nullptr;
    void* context = nullptr;
};

} // namespace moat::dma
