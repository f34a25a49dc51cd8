// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/qemu/pci_bus.hpp"

#include "moat/core/bits.hpp"

#include <algorithm>

namespace moat::machine::qemu {
namespace {

constexpr std::uint32_t bar_is_ports = 1;
constexpr std::uint32_t bar_is_64_bit = 4;
constexpr std::uint32_t bar_is_prefetchable = 8;

class BusWalk {
  public:
    BusWalk(ConfigSpace& config, PhysicalRange window)
        : config_(config), next_(window.start().value()), last_(window.last().value()) {}

    Result<void> bus(unsigned number) {
        for (unsigned device = 0; device != 32; ++device) {
            for (unsigned function = 0; function != 8; ++function) {
                const Bdf at(number, device, function);
                const std::uint32_t id = config_.read(at, pci::vendor_id);
                if ((id & 0xffff) == 0xffff || id == 0) {
                    if (function == 0)
                        break;
                    continue;
                }
                const std::uint32_t header = config_.read(at, pci::header_type & ~3U) >> 16;
                if (const auto done = one(at, id, header & 0x7f); !done)
                    return done;
                constexpr unsigned several_functions = 0x80;
                if (function == 0 && (header & several_functions) == 0)
                    break;
            }
        }
        return {};
    }

    std::vector<PciFunction> take() { return std::move(found_); }

  private:
    static constexpr unsigned most_buses = 32;
    static constexpr std::uint64_t bridge_granule_lg2 = 20;

    Result<void> one(Bdf at, std::uint32_t id, unsigned header) {
        const std::uint32_t class_revision = config_.read(at, pci::class_revision);
        if (header == 1)
            return bridge(at);
        if (header != 0)
            return {};
        PciFunction function;
        function.info = {.address = at,
                         .vendor = static_cast<std::uint16_t>(id),
                         .device = static_cast<std::uint16_t>(id >> 16),
                         .class_code = class_revision >> 8};
        for (unsigned index = 0; index < 6; ++index)
            index += bar(at, function, index);
        enable(at);
        found_.push_back(function);
        return {};
    }

    /// Assigns the next bus number to a bridge's secondary bus, and one range of addresses to what
    /// is behind it.
    Result<void> bridge(Bdf at) {
        if (++last_bus_ == most_buses)
            return fail(ErrorCode::limit, "there are more PCI buses than expected",
                        {"buses", most_buses});
        const unsigned secondary = last_bus_;
        const auto numbers = [&](unsigned subordinate) {
            config_.write(at, pci::bus_numbers, at.bus() | secondary << 8 | subordinate << 16);
        };
        numbers(0xff);
        next_ = align_up(next_, bridge_granule_lg2);
        const std::uint64_t first = next_;
        if (const auto done = bus(secondary); !done)
            return done;
        numbers(last_bus_);
        next_ = align_up(next_, bridge_granule_lg2);
        // A window whose base exceeds its limit is closed.
        const std::uint64_t base = next_ == first ? 0xfff00000 : first;
        const std::uint64_t limit = next_ == first ? 0 : next_ - 1;
        config_.write(at, pci::memory_window,
                      static_cast<std::uint32_t>((base >> 16 & 0xfff0) | (limit & 0xfff00000)));
        config_.write(at, pci::prefetch_window, 0x0000fff0);
        constexpr std::uint32_t on = pci::command_memory | pci::command_master;
        config_.write(at, pci::command, on);
        return {};
    }

    /// Return: how many more registers the BAR uses.
    unsigned bar(Bdf at, PciFunction& function, unsigned index) {
        const unsigned offset = pci::first_bar + 4 * index;
        const std::uint32_t low = probe(at, offset);
        if (low == 0)
            return 0;
        Bar& found = function.info.bars[index];
        if ((low & bar_is_ports) != 0) {
            found = {.kind = BarKind::ports, .size = size_of(0xffffffffffff0000 | (low & ~3U))};
            return 0;
        }
        const bool wide = (low & bar_is_64_bit) != 0 && index != 5;
        const std::uint64_t high = wide ? probe(at, offset + 4) : 0xffffffff;
        found = {.kind = wide ? BarKind::memory64 : BarKind::memory32,
                 .prefetchable = (low & bar_is_prefetchable) != 0,
                 .size = size_of(high << 32 | (low & ~0xfU))};
        if (const auto address = place(found.size)) {
            function.bars[index] = address;
            config_.write(at, offset, static_cast<std::uint32_t>(address->value()));
            if (wide)
                config_.write(at, offset + 4, static_cast<std::uint32_t>(address->value() >> 32));
        }
        return wide ? 1 : 0;
    }

    /// The writable bits are those above the size.
    std::uint32_t probe(Bdf at, unsigned offset) {
        config_.write(at, offset, 0xffffffff);
        const std::uint32_t value = config_.read(at, offset);
        config_.write(at, offset, 0);
        return value;
    }

    static ByteCount size_of(std::uint64_t writable) {
        return ByteCount(writable & (~writable + 1));
    }

    std::optional<PhysicalAddress> place(ByteCount size) {
        // At least a page, so that no two functions share one.
        const std::uint64_t bytes = std::max<std::uint64_t>(size.value(), 4096);
        if (size == ByteCount(0) || bytes > last_ - std::min(next_, last_))
            return std::nullopt;
        const std::uint64_t address = align_up(next_, floor_lg2(bytes));
        if (address > last_ || bytes - 1 > last_ - address)
            return std::nullopt;
        next_ = address + bytes;
        return PhysicalAddress(address);
    }

    void enable(Bdf at) {
        config_.write(at, pci::command, pci::command_memory | pci::command_no_intx);
    }

    ConfigSpace& config_;
    std::uint64_t next_;
    const std::uint64_t last_;
    unsigned last_bus_ = 0;
    std::vector<PciFunction> found_;
};

} // namespace

Result<std::vector<PciFunction>> configure_bus(ConfigSpace& config, PhysicalRange window) {
    BusWalk walk(config, window);
    if (const auto done = walk.bus(0); !done)
        return std::unexpected(done.error());
    auto found = walk.take();
    std::ranges::sort(found, {}, [](const PciFunction& each) { return each.info.address; });
    return found;
}

std::optional<unsigned> find_capability(ConfigSpace& config, Bdf function, std::uint8_t id) {
    const std::uint32_t status = config.read(function, pci::command) >> 16;
    if ((status & pci::status_capabilities) == 0)
        return std::nullopt;
    unsigned at = config.read(function, pci::capabilities) & 0xfc;
    // 192 bytes of at least 4 each.
    for (unsigned seen = 0; at >= 0x40 && seen != 48; ++seen) {
        const std::uint32_t header = config.read(function, at);
        if ((header & 0xff) == id)
            return at;
        at = header >> 8 & 0xfc;
    }
    return std::nullopt;
}

} // namespace moat::machine::qemu
