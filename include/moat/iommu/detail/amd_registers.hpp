// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The register layout of an AMD IOMMU. amd.hpp uses it.
// Source: AMD I/O Virtualization Technology (IOMMU) Specification, 48882, revision 3.11, 3.4 (MMIO
// registers).
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/iommu/unit_registers.hpp"

#include <cstdint>

namespace moat::iommu::amd {

/// All have 64 bits.
namespace reg {

inline constexpr unsigned device_table = 0x00;   ///< 3.4.1
inline constexpr unsigned command_buffer = 0x08; ///< 3.4.2
inline constexpr unsigned event_log = 0x10;      ///< 3.4.3
inline constexpr unsigned control = 0x18;        ///< 3.4.4
inline constexpr unsigned exclusion = 0x20;      ///< 3.4.5; a range that is not translated
inline constexpr unsigned features = 0x30;       ///< 3.4.7
inline constexpr unsigned command_head = 0x2000;
inline constexpr unsigned command_tail = 0x2008;
inline constexpr unsigned event_head = 0x2010;
inline constexpr unsigned event_tail = 0x2018;
inline constexpr unsigned status = 0x2020;

} // namespace reg

namespace control {

inline constexpr std::uint64_t translation = bit(0); ///< IommuEn
inline constexpr std::uint64_t event_log = bit(2);
inline constexpr std::uint64_t coherent = bit(10); ///< reads of the device table snoop
inline constexpr std::uint64_t command_buffer = bit(12);
/// What the driver enables.
inline constexpr std::uint64_t on = translation | event_log | coherent | command_buffer;

} // namespace control

namespace status {

inline constexpr std::uint64_t event_overflow = bit(0); ///< written back to clear it
inline constexpr std::uint64_t logs_events = bit(3);    ///< EventLogRun
inline constexpr std::uint64_t runs_commands = bit(4);  ///< CmdBufRun

} // namespace status

/// A queue's base register: its address, and log2 of its entries of 16 bytes, 8 to 15.
[[nodiscard]] constexpr std::uint64_t queue_register(PhysicalAddress table, unsigned entries_lg2) {
    return table.value() | std::uint64_t{entries_lg2} << 56;
}

inline constexpr unsigned queue_entry_lg2 = 4;
inline constexpr unsigned fewest_queue_entries_lg2 = 8;
inline constexpr unsigned most_queue_entries_lg2 = 15;

/// Bits of head and tail registers: the offset of an entry.
inline constexpr std::uint64_t queue_offset = field_mask(18, 4);

/// The Extended Feature Register, decoded.
class Features {
  public:
    constexpr explicit Features(std::uint64_t word) : word_(word) {}

    /// IASup: INVALIDATE_IOMMU_ALL.
    [[nodiscard]] constexpr bool invalidates_all() const { return (word_ & bit(6)) != 0; }

    /// HATS: the most levels of host tables.
    [[nodiscard]] constexpr unsigned most_levels() const {
        const auto code = static_cast<unsigned>(word_ >> 10 & 3);
        return code < 3 ? 4 + code : 4; // 3 is reserved
    }

  private:
    std::uint64_t word_;
};

} // namespace moat::iommu::amd
