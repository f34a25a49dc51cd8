// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Face: a soft PCI function as VFIO and vfio-user show it: configuration space, regions,
// interrupts, reset. The device itself is a DeviceModel.
// Source: PCI Local Bus 3.0, 6.1, 6.2.5 and 6.8.2; PCI Express Base 5.0, 7.5; Linux,
// include/uapi/linux/vfio.h for the numbers of regions and interrupts.
#pragma once

#include "machine/soft/device_model.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::machine::soft {

/// The kinds of interrupts, numbered as VFIO numbers them.
enum class InterruptKind : std::uint8_t { intx, msi, msix, error, request };

/// Ways in which a function is wrong as a whole; DataPhase has those of its transfers.
enum class Ailment : std::uint8_t {
    none,
    lost_interrupt, ///< one in two interrupts is not sent
    hang,           ///< does no work any more
    removed,        ///< reads return all ones, writes do nothing, no work
};

/// One function. Not thread-safe: its user has a lock. Accesses are hostile input.
class Face {
  public:
    static constexpr unsigned rom_region = 6;
    static constexpr unsigned config_region = 7;
    static constexpr unsigned vga_region = 8;
    static constexpr unsigned region_count = 9;
    static constexpr unsigned interrupt_kinds = 5;

    /// A region that does not exist has size 0.
    struct Region {
        ByteCount size = {};
        bool readable = false;
        bool writable = false;
        bool mappable = false;
    };

    /// The model outlives it.
    Face(Bdf address, DeviceModel& model);

    [[nodiscard]] const FunctionInfo& info() const { return info_; }

    [[nodiscard]] DeviceModel& model() { return model_; }

    /// `index` is below region_count.
    [[nodiscard]] Region region(unsigned index) const;

    /// How many interrupts of a kind it has.
    [[nodiscard]] unsigned interrupts(InterruptKind kind) const;

    /// Accesses of any length and alignment, split into the widths that registers have. Return:
    /// false, with nothing done, if a byte lies outside the region.
    [[nodiscard]] bool read(unsigned region, std::uint64_t offset, std::span<std::byte> into);
    [[nodiscard]] bool write(unsigned region, std::uint64_t offset,
                             std::span<const std::byte> from);

    /// Whether the command register permits DMA, and accesses to BARs.
    [[nodiscard]] bool bus_master() const;
    [[nodiscard]] bool memory_enabled() const;

    /// Lets the model work once. `bus` receives its accesses whether or not bus_master(), and its
    /// interrupts. Return: false if nothing is pending.
    [[nodiscard]] bool step(BusMaster& bus);

    /// To the state after power-on: the model, the command register, BARs.
    void reset();

    void fall_ill(Ailment ailment) { ailment_ = ailment; }

  private:
    DeviceModel& model_;
    FunctionInfo info_;
    Ailment ailment_ = Ailment::none;
    std::array<std::byte, 4096> config_{};
};

} // namespace moat::machine::soft
