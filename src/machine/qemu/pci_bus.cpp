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
    BusWalk(Qtest& qtest, const PciWindows& windows)
        : qtest_(qtest), windows_(windows), next_(windows.bars.start().value()),
          last_(windows.bars.last().value()) {}

    Result<void> bus(unsigned number) {
        for (unsigned device = 0; device != 32; ++device) {
            for (unsigned function = 0; function != 8; ++function) {
                const Bdf at(number, device, function);
                ConfigRegisters config(qtest_, windows_.ecam, at);
                const std::uint32_t id = config.read32(pci::vendor_id);
                if ((id & 0xffff) == 0xffff || id == 0) {
                    if (function == 0)
                        break;
                    continue;
                }
                const std::uint32_t header = config.read32(pci::header_type & ~3U) >> 16;
                MOAT_TRY(one(at, config, id, header & 0x7f));
                constexpr unsigned several_functions = 0x80;
                if (function == 0 && (header & several_functions) == 0)
                    break;
            }
        }
        return {};
    }

    std::vector<PciFunction> take() { return std::move(found_); }

  private:
    static constexpr std::uint64_t bridge_granule_lg2 = 20;

    Result<void> one(Bdf at, Registers& config, std::uint32_t id, unsigned header) {
        const std::uint32_t class_revision = config.read32(pci::class_revision);
        if (header == 1)
            return bridge(at, config);
        if (header != 0)
            return {};
        PciFunction function;
        function.info = {.address = at,
                         .vendor = static_cast<std::uint16_t>(id),
                         .device = static_cast<std::uint16_t>(id >> 16),
                         .class_code = class_revision >> 8};
        for (unsigned index = 0; index < 6; ++index)
            index += bar(config, function, index);
        config.write32(pci::command, pci::command_memory | pci::command_no_intx);
        found_.push_back(function);
        return {};
    }

    /// Assigns the next bus number to a bridge's secondary bus, and one range of addresses to what
    /// is behind it.
    Result<void> bridge(Bdf at, Registers& config) {
        if (++last_bus_ == windows_.buses)
            return fail(ErrorCode::limit, "there are more PCI buses than expected",
                        {"buses", windows_.buses});
        const unsigned secondary = last_bus_;
        const auto numbers = [&](unsigned subordinate) {
            config.write32(pci::bus_numbers, at.bus() | secondary << 8 | subordinate << 16);
        };
        numbers(0xff);
        next_ = align_up(next_, bridge_granule_lg2);
        const std::uint64_t first = next_;
        MOAT_TRY(bus(secondary));
        numbers(last_bus_);
        next_ = align_up(next_, bridge_granule_lg2);
        // A window whose base exceeds its limit is closed.
        const std::uint64_t base = next_ == first ? 0xfff00000 : first;
        const std::uint64_t limit = next_ == first ? 0 : next_ - 1;
        config.write32(pci::memory_window,
                       static_cast<std::uint32_t>((base >> 16 & 0xfff0) | (limit & 0xfff00000)));
        config.write32(pci::prefetch_window, 0x0000fff0);
        constexpr std::uint32_t on = pci::command_memory | pci::command_master;
        config.write32(pci::command, on);
        return {};
    }

    /// Return: how many more registers the BAR uses.
    unsigned bar(Registers& config, PciFunction& function, unsigned index) {
        const unsigned offset = pci::first_bar + 4 * index;
        const std::uint32_t low = probe(config, offset);
        if (low == 0)
            return 0;
        Bar& found = function.info.bars[index];
        if ((low & bar_is_ports) != 0) {
            found = {.kind = BarKind::ports, .size = size_of(0xffffffffffff0000 | (low & ~3U))};
            return 0;
        }
        const bool wide = (low & bar_is_64_bit) != 0 && index != 5;
        const std::uint64_t high = wide ? probe(config, offset + 4) : 0xffffffff;
        found = {.kind = wide ? BarKind::memory64 : BarKind::memory32,
                 .prefetchable = (low & bar_is_prefetchable) != 0,
                 .size = size_of(high << 32 | (low & ~0xfU))};
        if (const auto address = place(found.size)) {
            function.bars[index] = address;
            config.write32(offset, static_cast<std::uint32_t>(address->value()));
            if (wide)
                config.write32(offset + 4, static_cast<std::uint32_t>(address->value() >> 32));
        }
        return wide ? 1 : 0;
    }

    /// The writable bits are those above the size.
    static std::uint32_t probe(Registers& config, unsigned offset) {
        config.write32(offset, 0xffffffff);
        const std::uint32_t value = config.read32(offset);
        config.write32(offset, 0);
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

    Qtest& qtest_;
    const PciWindows windows_;
    std::uint64_t next_;
    const std::uint64_t last_;
    unsigned last_bus_ = 0;
    std::vector<PciFunction> found_;
};

} // namespace

Result<std::vector<PciFunction>> configure_bus(Qtest& qtest, const PciWindows& windows) {
    BusWalk walk(qtest, windows);
    MOAT_TRY(walk.bus(0));
    auto found = walk.take();
    std::ranges::sort(found, {}, [](const PciFunction& each) { return each.info.address; });
    return found;
}

} // namespace moat::machine::qemu
