// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Configuration space (a header, power management, MSI-X, PCI Express), BAR sizing, accesses in
// pieces, and the malfunctions.
#include "machine/soft/face.hpp"

#include "moat/core/bits.hpp"
#include "moat/core/check.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace moat::machine::soft {

namespace {

// Where the capabilities lie.
constexpr unsigned power = 0x40;
constexpr unsigned msix = 0x50;
constexpr unsigned express = 0x60;
constexpr unsigned first_vendor = 0xa0;

constexpr unsigned power_state = power + 4;
constexpr unsigned msix_control = msix + 2;
constexpr unsigned device_control = express + 8;

constexpr std::uint16_t power_state_bits = 3; // D0 to D3hot
constexpr std::uint16_t msix_enabled = 1U << 15;
constexpr std::uint16_t function_level_reset_bit = 1U << 15;

constexpr unsigned table_entry_bytes = 16;
constexpr unsigned vector_control = 12; ///< in an entry of the table
constexpr unsigned pending_bits = Face::most_vectors * table_entry_bytes;

constexpr std::uint64_t first_address = 0xe0000000; ///< of BARs

[[nodiscard]] bool occupies_two(const Bar& bar) {
    return bar.kind == BarKind::memory64;
}

/// The first BAR that is free, by preference 4, as many devices have it.
[[nodiscard]] std::optional<unsigned> free_bar(const std::array<Bar, 6>& bars) {
    for (const unsigned index : {4U, 5U, 3U, 2U, 1U, 0U})
        if (bars[index].kind == BarKind::absent && (index == 0 || !occupies_two(bars[index - 1])))
            return index;
    return std::nullopt;
}

/// Calls each(offset, index of its first byte, width) for pieces with the widths of registers.
template <class Each>
void split(std::uint64_t offset, std::size_t bytes, Each each) {
    for (std::size_t done = 0; done != bytes;) {
        std::size_t width = 8;
        while ((offset + done) % width != 0 || width > bytes - done)
            width /= 2;
        each(offset + done, done, static_cast<Width>(width));
        done += width;
    }
}

} // namespace

/// A bus that loses one in two interrupts.
class Face::LossyBus final : public BusMaster {
  public:
    LossyBus(Face& face, BusMaster& bus) : face_(face), bus_(bus) {}

    virtual ~LossyBus() = default;

    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        return bus_.read(from, into);
    }

    [[nodiscard]] ByteCount write(Iova to, std::span<const std::byte> from) override {
        return bus_.write(to, from);
    }

    void interrupt(unsigned vector) override {
        const std::uint64_t before = face_.happened_++;
        const Occasions& when = face_.when_;
        const bool lost = when.include(before) && (when.seed || (before - when.after) % 2 == 0);
        if (!lost)
            return bus_.interrupt(vector);
        ++face_.lost_;
    }

  private:
    Face& face_;
    BusMaster& bus_;
};

Face::Face(Bdf address, DeviceModel& model) : model_(model), info_(model.info()) {
    info_.address = address;
    if (model.vectors() != 0)
        msix_bar_ = free_bar(info_.bars);
    if (msix_bar_)
        info_.bars[*msix_bar_] = {.kind = BarKind::memory32, .size = ByteCount(msix_.size())};
    reset();
}

Face::Region Face::region(unsigned index) const {
    if (index == config_region)
        return {.size = ByteCount(config_.size()), .readable = true, .writable = true};
    if (index >= info_.bars.size() || info_.bars[index].kind == BarKind::absent)
        return {};
    const Bar& bar = info_.bars[index];
    return {.size = bar.size,
            .readable = true,
            .writable = true,
            .mappable = bar.size.value() >= 4096}; // ports have at most 256
}

unsigned Face::interrupts(InterruptKind kind) const {
    switch (kind) {
    case InterruptKind::intx:
        return model_.vectors() != 0 ? 1 : 0;
    case InterruptKind::msi:
        return 0;
    case InterruptKind::msix:
        return msix_bar_ ? std::min(model_.vectors(), most_vectors) : 0;
    case InterruptKind::error: // as every PCI Express function has them in Linux
    case InterruptKind::request:
        return 1;
    }
    return 0;
}

void Face::put(unsigned offset, unsigned bytes, std::uint64_t value, std::uint64_t writable) {
    std::memcpy(config_.data() + offset, &value, bytes);
    std::memcpy(writable_.data() + offset, &writable, bytes);
}

std::uint16_t Face::config16(unsigned offset) const {
    std::uint16_t value = 0;
    std::memcpy(&value, config_.data() + offset, sizeof value);
    return value;
}

void Face::put_header() {
    const bool has_ports = std::ranges::count(info_.bars, BarKind::ports, &Bar::kind) != 0;
    put(pci::vendor_id, 2, info_.vendor);
    put(pci::vendor_id + 2, 2, info_.device);
    put(pci::command, 2, pci::command_memory | (has_ports ? pci::command_ports : 0U),
        pci::command_memory | pci::command_master | pci::command_parity |
            pci::command_system_error | pci::command_no_intx |
            (has_ports ? pci::command_ports : 0U));
    put(pci::status, 2, pci::status_capabilities);
    put(pci::class_revision, 4, std::uint64_t{info_.class_code} << 8 | 1);
    put(pci::cache_line_size, 1, 0, 0xff);
    put(pci::subsystem, 2, 0x1af4); // as QEMU's devices
    put(pci::subsystem + 2, 2, 0x1100);
    put(pci::capabilities, 1, power);
    put(pci::interrupt_line, 1, 0, 0xff);
    put(pci::interrupt_pin, 1, interrupts(InterruptKind::intx));
}

void Face::put_bars() {
    std::uint64_t next = first_address;
    for (unsigned index = 0; index != info_.bars.size(); ++index) {
        const Bar& bar = info_.bars[index];
        if (bar.kind == BarKind::absent)
            continue;
        const std::uint64_t size = bar.size.value();
        MOAT_CHECK(size >= 16 && std::has_single_bit(size), "a BAR's size is a power of two");
        const bool is_wide = occupies_two(bar);
        const std::uint64_t flags =
            bar.kind == BarKind::ports ? 1 : (is_wide ? 4U : 0U) | (bar.prefetchable ? 8U : 0U);
        next = align_up(next, floor_lg2(size));
        put(pci::first_bar + 4 * index, is_wide ? 8 : 4, next | flags, ~(size - 1));
        next += size;
    }
}

void Face::put_capabilities() {
    // Power management 1.2: D0 and D3hot, from which it returns without a reset.
    put(power, 4, pci::capability_power | 3U << 16);
    put(power_state, 2, 1U << 3, power_state_bits);
    unsigned previous = power + 1;
    if (const unsigned vectors = interrupts(InterruptKind::msix); vectors != 0) {
        put(previous, 1, msix);
        put(msix, 2, pci::capability_msix);
        put(msix_control, 2, vectors - 1);
        put(msix + 4, 4, *msix_bar_); // the table, from 0 on
        put(msix + 8, 4, pending_bits | *msix_bar_);
        previous = msix + 1;
    }
    // An endpoint with version 2 of the capability: function-level reset, payloads of 256 bytes,
    // four lanes of 8 GT/s.
    put(previous, 1, express);
    put(express, 4, pci::capability_express | 2U << 16);
    put(express + 4, 4, bit(28) | bit(15) | 1);
    put(device_control, 2, 2U << 12, 0x7fff);
    put(express + 12, 4, 0x43);
    put(express + 16, 2, 0, 0x0fff);
    put(express + 18, 2, 0x43);
    put_vendor_capabilities(express + 1);
}

void Face::put_vendor_capabilities(unsigned previous) {
    constexpr unsigned end = 0x100;
    unsigned at = first_vendor;
    for (const VendorCapability& each : model_.vendor_capabilities()) {
        MOAT_CHECK(each.size() + 2 <= end - at, "a model's capabilities fit");
        put(previous, 1, at);
        put(at, 1, pci::capability_vendor);
        std::memcpy(config_.data() + at + 2, each.data(), each.size());
        previous = at + 1;
        at = static_cast<unsigned>(align_up(at + 2 + each.size(), 2));
    }
}

void Face::show_msix_enabled(bool enabled) {
    if (!msix_bar_)
        return;
    const std::uint16_t others = config16(msix_control) & ~msix_enabled;
    put(msix_control, 2, others | (enabled ? msix_enabled : 0U));
}

bool Face::contains(unsigned region, std::uint64_t offset, std::size_t bytes) const {
    const std::uint64_t size = this->region(region).size.value();
    return offset <= size && bytes <= size - offset;
}

bool Face::answers(unsigned region) const {
    if (is(Malfunction::removed))
        return false;
    if (needs_memory_enabled(region))
        return false;
    return region == config_region || info_.bars[region].kind != BarKind::ports ||
           (config16(pci::command) & pci::command_ports) != 0;
}

bool Face::needs_memory_enabled(unsigned region) const {
    return region < info_.bars.size() && info_.bars[region].kind != BarKind::ports &&
           !memory_enabled();
}

bool Face::read(unsigned region, std::uint64_t offset, std::span<std::byte> into) {
    if (!contains(region, offset, into.size()))
        return false;
    if (into.empty()) // of a region that may not exist
        return true;
    if (!answers(region) || (region != config_region && is(Malfunction::all_ones))) {
        std::ranges::fill(into, std::byte{0xff});
    } else if (region == config_region) {
        std::ranges::copy(std::span(config_).subspan(offset, into.size()), into.begin());
    } else if (region == msix_bar_) {
        std::ranges::copy(std::span(msix_).subspan(offset, into.size()), into.begin());
    } else {
        split(offset, into.size(), [&](std::uint64_t at, std::size_t first, Width width) {
            const std::uint64_t value = model_.read(region, at, width);
            std::memcpy(into.data() + first, &value, static_cast<std::size_t>(width));
        });
    }
    return true;
}

bool Face::write(unsigned region, std::uint64_t offset, std::span<const std::byte> from) {
    if (!contains(region, offset, from.size()))
        return false;
    if (from.empty() || !answers(region))
        return true;
    if (region == config_region) {
        write_config(offset, from);
    } else if (region == msix_bar_) {
        const std::uint64_t end = interrupts(InterruptKind::msix) * table_entry_bytes;
        if (offset < end)
            std::ranges::copy(from.first(std::min<std::uint64_t>(from.size(), end - offset)),
                              msix_.begin() + static_cast<std::ptrdiff_t>(offset));
    } else {
        split(offset, from.size(), [&](std::uint64_t at, std::size_t first, Width width) {
            std::uint64_t value = 0;
            std::memcpy(&value, from.data() + first, static_cast<std::size_t>(width));
            model_.write(region, at, width, value);
        });
    }
    return true;
}

void Face::write_config(std::uint64_t offset, std::span<const std::byte> from) {
    for (std::size_t index = 0; index != from.size(); ++index) {
        const std::byte writable = writable_[offset + index];
        std::byte& here = config_[offset + index];
        here = (here & ~writable) | (from[index] & writable);
    }
    constexpr unsigned reset_byte = device_control + 1;
    constexpr std::byte reset_bit{function_level_reset_bit >> 8};
    if (offset <= reset_byte && reset_byte - offset < from.size() &&
        (from[reset_byte - offset] & reset_bit) != std::byte{0})
        function_level_reset();
}

bool Face::bus_master() const {
    return (config16(pci::command) & pci::command_master) != 0;
}

bool Face::memory_enabled() const {
    return (config16(pci::command) & pci::command_memory) != 0 &&
           (config16(power_state) & power_state_bits) == 0;
}

bool Face::step(BusMaster& bus) {
    if (is(Malfunction::hang) || is(Malfunction::removed))
        return false;
    if (malfunction_ == Malfunction::lost_interrupt) {
        LossyBus lossy(*this, bus);
        return model_.step(lossy);
    }
    const bool worked = model_.step(bus);
    happened_ += worked ? 1 : 0;
    return worked;
}

void Face::reset() {
    config_ = writable_ = {};
    put_header();
    put_bars();
    put_capabilities();
    function_level_reset();
}

void Face::function_level_reset() {
    model_.reset();
    msix_ = {};
    for (unsigned vector = 0; vector != interrupts(InterruptKind::msix); ++vector)
        msix_[vector * table_entry_bytes + vector_control] = std::byte{1}; // masked
}

void Face::inject(Malfunction malfunction, const Occasions& when) {
    malfunction_ = malfunction;
    when_ = when;
    happened_ = 0;
}

bool Face::is(Malfunction malfunction) const {
    return malfunction_ == malfunction && happened_ >= when_.start();
}

std::uint64_t Face::malfunctions() const {
    const bool began = malfunction_ != Malfunction::none &&
                       malfunction_ != Malfunction::lost_interrupt && is(malfunction_);
    return lost_ + (began ? 1 : 0);
}

} // namespace moat::machine::soft
