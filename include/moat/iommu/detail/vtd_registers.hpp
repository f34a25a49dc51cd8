// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The register layout of a VT-d unit. vtd.hpp uses it.
// Source: Intel Virtualization Technology for Directed I/O, 11.4 "Register Descriptions".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iommu/unit_registers.hpp"

#include <cstdint>

namespace moat::iommu::vtd {

namespace reg {

inline constexpr unsigned version = 0x00;
inline constexpr unsigned capability = 0x08;
inline constexpr unsigned extended_capability = 0x10;
inline constexpr unsigned global_command = 0x18;
inline constexpr unsigned global_status = 0x1c;
inline constexpr unsigned root_table = 0x20;
inline constexpr unsigned context_command = 0x28;
inline constexpr unsigned fault_status = 0x34;
inline constexpr unsigned queue_head = 0x80;
inline constexpr unsigned queue_tail = 0x88;
inline constexpr unsigned queue_address = 0x90;

} // namespace reg

namespace global { // of the command, and the same bits of the status

inline constexpr std::uint32_t translation = 1U << 31;
inline constexpr std::uint32_t root_pointer = 1U << 30;
inline constexpr std::uint32_t write_buffer = 1U << 27;
inline constexpr std::uint32_t queue = 1U << 26;
/// Status bits that keep their value when written back (11.4.4.1).
inline constexpr std::uint32_t kept = 0x96ffffff;

} // namespace global

namespace fault_bits {

inline constexpr std::uint32_t overflow = 1U << 0;
inline constexpr std::uint32_t pending = 1U << 1;
inline constexpr std::uint32_t queue_errors = 7U << 4; ///< descriptor, completion, time-out

inline constexpr std::uint64_t set = bit(63); ///< of a record's upper half
inline constexpr std::uint64_t was_read = bit(62);
inline constexpr std::uint64_t has_pasid = bit(31);
inline constexpr std::uint64_t execute = bit(30);

} // namespace fault_bits

/// CAP and ECAP, decoded (11.4.2, 11.4.3).
class Capabilities {
  public:
    constexpr Capabilities(std::uint64_t capability, std::uint64_t extended)
        : cap_(capability), ecap_(extended) {}

    /// At most 2^16, the range of a domain identifier.
    [[nodiscard]] constexpr unsigned domains() const {
        const unsigned bits = 4 + 2 * field(cap_, 2, 0);
        return 1U << (bits < 16 ? bits : 16);
    }

    [[nodiscard]] constexpr bool flushes_write_buffer() const { return has(cap_, 4); }

    /// Whether absent entries are cached: new mappings need an invalidation.
    [[nodiscard]] constexpr bool caches_absent() const { return has(cap_, 7); }

    /// Second-stage tables of 3, 4 or 5 levels.
    [[nodiscard]] constexpr bool has_levels(unsigned levels) const {
        return levels >= 3 && levels <= 5 && has(cap_, 8 + levels - 2);
    }

    [[nodiscard]] constexpr unsigned address_bits() const { return field(cap_, 21, 16) + 1; }

    [[nodiscard]] constexpr unsigned fault_records() const { return 16 * field(cap_, 33, 24); }

    [[nodiscard]] constexpr unsigned fault_record_count() const { return field(cap_, 47, 40) + 1; }

    /// Bit n is set if a leaf may have 2^n bytes.
    [[nodiscard]] constexpr std::uint64_t leaf_sizes() const {
        return bit(12) | (has(cap_, 34) ? bit(21) : 0) |
               (has(cap_, 34) && has(cap_, 35) ? bit(30) : 0);
    }

    [[nodiscard]] constexpr bool invalidates_pages() const { return has(cap_, 39); }

    /// log2 of the most pages that one invalidation by page can cover.
    [[nodiscard]] constexpr unsigned most_pages_lg2() const { return field(cap_, 53, 48); }

    [[nodiscard]] constexpr bool drains_writes() const { return has(cap_, 54); }

    [[nodiscard]] constexpr bool drains_reads() const { return has(cap_, 55); }

    /// Whether the unit reads tables through the processors' caches.
    [[nodiscard]] constexpr bool walks_coherently() const { return has(ecap_, 0); }

    [[nodiscard]] constexpr bool has_queue() const { return has(ecap_, 1); }

    /// Whether functions may cache translations, in device-TLBs (4.1).
    [[nodiscard]] constexpr bool serves_device_tlbs() const { return has(ecap_, 2); }

    [[nodiscard]] constexpr bool snoop_control() const { return has(ecap_, 7); }

    /// The offset of IVA; IOTLB is 8 bytes further.
    [[nodiscard]] constexpr unsigned iotlb_registers() const { return 16 * field(ecap_, 17, 8); }

  private:
    static constexpr unsigned field(std::uint64_t word, unsigned high, unsigned low) {
        return static_cast<unsigned>((word & field_mask(high, low)) >> low);
    }

    static constexpr bool has(std::uint64_t word, unsigned index) {
        return (word & bit(index)) != 0;
    }

    std::uint64_t cap_;
    std::uint64_t ecap_;
};

} // namespace moat::iommu::vtd
