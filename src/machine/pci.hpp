// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// PCI numbers that every machine shares: a function's address, and offsets in configuration space.
// No access to a device: that is machine.hpp.
// Source: PCI Local Bus 3.0, 6.1 and 6.8.2; PCI Express Base 5.0, 7.5.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/types.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <string>

namespace moat::machine {

/// A PCI function's address. Trivially copyable.
class Bdf {
  public:
    constexpr Bdf() = default;

    /// `bus` < 256, `device` < 32, `function` < 8.
    constexpr Bdf(unsigned bus, unsigned device, unsigned function, std::uint16_t segment = 0)
        : segment_(segment),
          requester_(static_cast<std::uint16_t>(bus << 8 | device << 3 | function)) {
        MOAT_CHECK(bus < 256 && device < 32 && function < 8, "a PCI function's numbers");
    }

    [[nodiscard]] constexpr std::uint16_t segment() const { return segment_; }

    [[nodiscard]] constexpr unsigned bus() const { return requester_ >> 8U; }

    [[nodiscard]] constexpr unsigned device() const { return requester_ >> 3U & 0x1f; }

    [[nodiscard]] constexpr unsigned function() const { return requester_ & 7U; }

    /// The requester ID, as an IOMMU uses it: bus 15..8, device 7..3, function 2..0.
    [[nodiscard]] constexpr std::uint16_t requester() const { return requester_; }

    friend constexpr auto operator<=>(const Bdf&, const Bdf&) = default;

  private:
    std::uint16_t segment_ = 0;
    std::uint16_t requester_ = 0;
};

/// `value` as `count` hexadecimal digits.
[[nodiscard]] inline std::string digits(unsigned value, unsigned count) {
    std::string text;
    while (count-- != 0)
        text += "0123456789abcdef"[value >> 4 * count & 0xf];
    return text;
}

/// "0000:00:04.0", the format of Linux and lspci.
[[nodiscard]] inline std::string to_string(Bdf bdf) {
    return digits(bdf.segment(), 4) + ':' + digits(bdf.bus(), 2) + ':' + digits(bdf.device(), 2) +
           '.' + digits(bdf.function(), 1);
}

/// What a BAR decodes. No machine maps ports.
enum class BarKind : std::uint8_t { absent, memory32, memory64, ports };

struct Bar {
    BarKind kind = BarKind::absent;
    bool prefetchable = false;
    ByteCount size = {};
};

/// From the header of a function's configuration space.
struct FunctionInfo {
    Bdf address;
    std::uint16_t vendor = 0;
    std::uint16_t device = 0;
    std::uint32_t class_code = 0;     ///< class 23..16, subclass 15..8, programming interface 7..0
    std::array<Bar, 6> bars{};        ///< the upper half of a 64-bit BAR is absent
    bool caches_translations = false; ///< in a domain that invalidates them, by ATS
};

namespace pci {

inline constexpr unsigned vendor_id = 0x00;
inline constexpr unsigned command = 0x04;
inline constexpr unsigned status = 0x06;
inline constexpr unsigned class_revision = 0x08;
inline constexpr unsigned cache_line_size = 0x0c;
inline constexpr unsigned header_type = 0x0e;
inline constexpr unsigned first_bar = 0x10;
inline constexpr unsigned bus_numbers = 0x18;     ///< of a bridge
inline constexpr unsigned memory_window = 0x20;   ///< of a bridge
inline constexpr unsigned prefetch_window = 0x24; ///< of a bridge
inline constexpr unsigned subsystem = 0x2c;       ///< vendor, device
inline constexpr unsigned capabilities = 0x34;
inline constexpr unsigned interrupt_line = 0x3c;
inline constexpr unsigned interrupt_pin = 0x3d;
inline constexpr unsigned end_of_header = 0x40;

inline constexpr std::uint16_t command_ports = 1U << 0;
inline constexpr std::uint16_t command_memory = 1U << 1;
inline constexpr std::uint16_t command_master = 1U << 2;
inline constexpr std::uint16_t command_parity = 1U << 6;
inline constexpr std::uint16_t command_system_error = 1U << 8;
inline constexpr std::uint16_t command_no_intx = 1U << 10;
inline constexpr std::uint16_t status_capabilities = 1U << 4;

inline constexpr std::uint8_t capability_power = 0x01;
inline constexpr std::uint8_t capability_vendor = 0x09;
inline constexpr std::uint8_t capability_express = 0x10;
inline constexpr std::uint8_t capability_msix = 0x11;

/// Extended capabilities (7.6.3): Address Translation Services (10.5.1), and offsets in it.
inline constexpr unsigned first_extended = 0x100;
inline constexpr unsigned extended_ats = 0x0f;
inline constexpr unsigned ats_capability = 4;
inline constexpr unsigned ats_control = 6;
inline constexpr std::uint16_t ats_enabled = 1U << 15;

} // namespace pci

} // namespace moat::machine
