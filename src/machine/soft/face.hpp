// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Face: a soft PCI function as VFIO and vfio-user show it: configuration space, regions,
// interrupts, reset. The device itself is a DeviceModel.
// Source: PCI Local Bus 3.0, 6.1, 6.2.5 and 6.8.2; PCI Express Base 5.0, 7.5; Linux,
// include/uapi/linux/vfio.h for the numbers of regions and interrupts.
#pragma once

#include "machine/soft/device_model.hpp"
#include "machine/soft/occasions.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace moat::machine::soft {

/// The kinds of interrupts, numbered as VFIO numbers them.
enum class InterruptKind : std::uint8_t { intx, msi, msix, error, request };

/// Ways in which a function is wrong as a whole; DataPhase has those of its transfers.
enum class Malfunction : std::uint8_t {
    none,
    lost_interrupt, ///< one in two interrupts is not sent; of a seed, its occasions
    hang,           ///< does no work any more
    removed,        ///< reads return all ones, writes do nothing, no work
    all_ones,       ///< BARs read as all ones; the rest works
};

[[nodiscard]] constexpr std::string_view name(Malfunction malfunction) {
    constexpr std::array<std::string_view, 5> names = {"none", "lost-interrupt", "hang", "removed",
                                                       "all-ones"};
    return names[static_cast<std::size_t>(malfunction)];
}

/// One function. Not thread-safe: its user has a lock. Accesses are hostile input.
class Face {
  public:
    static constexpr unsigned rom_region = 6;
    static constexpr unsigned config_region = 7;
    static constexpr unsigned vga_region = 8;
    static constexpr unsigned region_count = 9;
    static constexpr unsigned interrupt_kinds = 5;
    static constexpr unsigned most_vectors = 128; ///< of MSI-X

    /// A region that does not exist has size 0.
    struct Region {
        ByteCount size = {};
        bool readable = false;
        bool writable = false;
        bool mappable = false;
    };

    /// The model outlives it. As after reset().
    Face(Bdf address, DeviceModel& model);

    /// The model's, with the address and the BAR of MSI-X.
    [[nodiscard]] const FunctionInfo& info() const { return info_; }

    [[nodiscard]] DeviceModel& model() { return model_; }

    /// `index` is below region_count.
    [[nodiscard]] Region region(unsigned index) const;

    /// How many interrupts of a kind it has.
    [[nodiscard]] unsigned interrupts(InterruptKind kind) const;

    /// The BAR with the table and pending bits of MSI-X, the first that the model leaves free;
    /// nothing if it leaves none: the function has no MSI-X then.
    [[nodiscard]] std::optional<unsigned> msix_bar() const { return msix_bar_; }

    /// Shows MSI-X as enabled or not. The bit is the host's: writes do not change it.
    void show_msix_enabled(bool enabled);

    /// Accesses of any length and alignment, split into the widths that registers have. A BAR that
    /// the command register disables reads as all ones. Return: false, with nothing done, if a byte
    /// lies outside the region.
    [[nodiscard]] bool read(unsigned region, std::uint64_t offset, std::span<std::byte> into);
    [[nodiscard]] bool write(unsigned region, std::uint64_t offset,
                             std::span<const std::byte> from);

    /// Whether the command register permits DMA, and accesses to BARs.
    [[nodiscard]] bool bus_master() const;
    [[nodiscard]] bool memory_enabled() const;

    /// Whether an access of the region is lost because memory decoding is disabled.
    [[nodiscard]] bool needs_memory_enabled(unsigned region) const;

    // Of the model.
    [[nodiscard]] bool disabled() const { return model_.disabled(); }

    /// False of a function that is removed.
    [[nodiscard]] bool uses(IovaRange range, BusMaster& bus) const {
        return !is(Malfunction::removed) && model_.uses(range, bus);
    }

    /// Lets the model work once. `bus` receives its accesses whether or not bus_master(), and its
    /// interrupts. Return: false if nothing is pending.
    [[nodiscard]] bool step(BusMaster& bus);

    /// To the state in which vfio-pci opens a function: the model reset, BARs assigned and enabled,
    /// bus mastering off.
    void reset();

    /// Resets the model, and keeps configuration space: Linux restores it. Also the answer to a
    /// write of the function-level reset's bit.
    void function_level_reset();

    /// `when`: of its interrupts (lost_interrupt), or the working step at which it begins (others).
    void inject(Malfunction malfunction, const Occasions& when = {});

    /// How many interrupts it lost, or 1 once another malfunction has begun.
    [[nodiscard]] std::uint64_t malfunctions() const;

  private:
    class LossyBus;

    /// `writable` has the bits that a write changes.
    void put(unsigned offset, unsigned bytes, std::uint64_t value, std::uint64_t writable = 0);
    [[nodiscard]] std::uint16_t config16(unsigned offset) const;
    void put_header();
    void put_bars();
    void put_capabilities();
    /// `previous` is where the last capability's pointer to its next lies.
    void put_vendor_capabilities(unsigned previous);
    void write_config(std::uint64_t offset, std::span<const std::byte> from);
    [[nodiscard]] bool contains(unsigned region, std::uint64_t offset, std::size_t bytes) const;
    [[nodiscard]] bool answers(unsigned region) const;
    /// Whether the malfunction has begun.
    [[nodiscard]] bool is(Malfunction malfunction) const;

    DeviceModel& model_;
    FunctionInfo info_;
    std::optional<unsigned> msix_bar_;
    std::array<std::byte, 4096> config_{};
    std::array<std::byte, 4096> writable_{};
    std::array<std::byte, 4096> msix_{}; ///< the table's entries, and the pending bits: never set

    Malfunction malfunction_ = Malfunction::none;
    Occasions when_ = {};
    std::uint64_t happened_ = 0; ///< interrupts or working steps since inject()
    std::uint64_t lost_ = 0;
};

} // namespace moat::machine::soft
