// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The register layout of an SMMUv3, non-secure interface. smmuv3.hpp uses it.
// Source: Arm System Memory Management Unit Architecture Specification, version 3 (IHI 0070), 6.2
// "Register overview" and 6.3.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iommu/unit_registers.hpp"

#include <cstdint>

namespace moat::iommu::smmuv3 {

namespace reg {

inline constexpr unsigned idr0 = 0x00;
inline constexpr unsigned idr1 = 0x04;
inline constexpr unsigned idr3 = 0x0c;
inline constexpr unsigned idr5 = 0x14;
inline constexpr unsigned control = 0x20;             ///< CR0
inline constexpr unsigned control_acknowledge = 0x24; ///< CR0ACK
inline constexpr unsigned attributes = 0x28;          ///< CR1
inline constexpr unsigned recording = 0x2c;           ///< CR2
inline constexpr unsigned errors = 0x60;              ///< GERROR
inline constexpr unsigned errors_acknowledged = 0x64; ///< GERRORN
inline constexpr unsigned stream_table = 0x80;
inline constexpr unsigned stream_table_config = 0x88;
inline constexpr unsigned command_queue = 0x90;
inline constexpr unsigned command_producer = 0x98;
inline constexpr unsigned command_consumer = 0x9c;
inline constexpr unsigned event_queue = 0xa0;
inline constexpr unsigned event_producer = 0x100a8; ///< in page 1
inline constexpr unsigned event_consumer = 0x100ac;

} // namespace reg

namespace control { // CR0, 6.3.9

inline constexpr std::uint32_t translation = 1U << 0;
inline constexpr std::uint32_t event_queue = 1U << 2;
inline constexpr std::uint32_t command_queue = 1U << 3;
/// ATSCHK: a stream whose entry does not serve its function's cache has no translated accesses.
inline constexpr std::uint32_t checks_translated = 1U << 4;

} // namespace control

/// CR1 (6.3.11): tables and queues are in write-back, inner shareable memory.
inline constexpr std::uint32_t attributes_value = 3U << 10 | 1U << 8 | 1U << 6 | 3U << 4 | 5;

/// CR2: events for StreamIDs beyond the table are recorded; broadcast invalidations are ignored.
inline constexpr std::uint32_t recording_value = 1U << 1 | 1U << 2;

/// Bits of GERROR; active while they differ from GERRORN's (6.3.19).
inline constexpr std::uint32_t command_queue_error = 1U << 0;
inline constexpr std::uint32_t event_queue_abort = 1U << 2;

/// IDR0, IDR1, IDR3 and IDR5, decoded.
class Capabilities {
  public:
    constexpr Capabilities(std::uint32_t idr0, std::uint32_t idr1, std::uint32_t idr3,
                           std::uint32_t idr5)
        : idr0_(idr0), idr1_(idr1), idr3_(idr3), idr5_(idr5) {}

    [[nodiscard]] constexpr bool has_stage1() const { return has(idr0_, 1); }

    /// VMSAv8-64 tables with the granule of 4K.
    [[nodiscard]] constexpr bool has_4k_tables() const { return has(idr0_, 3) && has(idr5_, 4); }

    /// Whether the unit reads tables and queues through the processors' caches.
    [[nodiscard]] constexpr bool is_coherent() const { return has(idr0_, 4); }

    /// Whether functions may cache translations (ATS).
    [[nodiscard]] constexpr bool serves_device_tlbs() const { return has(idr0_, 10); }

    /// Number 0 is not used.
    [[nodiscard]] constexpr unsigned address_spaces() const {
        return has(idr0_, 12) ? 1U << 16 : 1U << 8;
    }

    /// Whether software chooses if faults stall; if not, STE.S1STALLD is illegal.
    [[nodiscard]] constexpr bool stall_is_optional() const { return field(idr0_, 25, 24) == 0; }

    [[nodiscard]] constexpr bool places_are_fixed() const {
        return has(idr1_, 29) || has(idr1_, 30);
    }

    [[nodiscard]] constexpr unsigned stream_bits() const { return field(idr1_, 5, 0); }

    [[nodiscard]] constexpr unsigned most_events_lg2() const { return field(idr1_, 20, 16); }

    [[nodiscard]] constexpr unsigned most_commands_lg2() const { return field(idr1_, 25, 21); }

    [[nodiscard]] constexpr bool invalidates_ranges() const { return has(idr3_, 10); }

    /// The code of the output address size, as CD.IPS has it; 48 bits at most.
    [[nodiscard]] constexpr unsigned output_size() const {
        const unsigned size = field(idr5_, 2, 0);
        return size < 5 ? size : 5;
    }

  private:
    static constexpr unsigned field(std::uint32_t word, unsigned high, unsigned low) {
        return static_cast<unsigned>((word & field_mask(high, low)) >> low);
    }

    static constexpr bool has(std::uint32_t word, unsigned index) {
        return (word & bit(index)) != 0;
    }

    std::uint32_t idr0_;
    std::uint32_t idr1_;
    std::uint32_t idr3_;
    std::uint32_t idr5_;
};

} // namespace moat::iommu::smmuv3
