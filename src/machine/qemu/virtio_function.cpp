// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/qemu/virtio_function.hpp"

#include "machine/machine.hpp"

#include <algorithm>
#include <array>

namespace moat::machine::qemu {

namespace {

/// In the order of their numbers, from 1 on.
enum class Structure : std::uint8_t { common, notify, interrupt_status, device };

constexpr std::size_t structures = 4;

struct Place {
    unsigned bar = 6; ///< none
    std::uint32_t offset = 0;
    std::uint32_t bytes = 0;
};

} // namespace

bool is_virtio_iommu(const PciFunction& function) {
    return function.info.vendor == 0x1af4 && function.info.device == 0x1040 + 23;
}

Result<VirtioFunction> enable_virtio_iommu(Qtest& qtest, PhysicalAddress ecam,
                                           std::span<const PciFunction> functions) {
    const auto found = std::ranges::find_if(functions, is_virtio_iommu);
    if (found == functions.end())
        return fail(ErrorCode::not_found, "QEMU has no virtio-iommu");
    ConfigRegisters config(qtest, ecam, found->info.address);
    std::array<Place, structures> places;
    std::uint32_t multiplier = 0;
    const auto look = [&](unsigned offset, std::uint8_t id) {
        if (id != pci::capability_vendor || offset > 256 - 20)
            return false;
        const unsigned type = config.read8(offset + 3);
        // The first of each type is the one to use (4.1.4.1).
        if (type == 0 || type > structures || places[type - 1].bar != 6)
            return false;
        places[type - 1] = {config.read8(offset + 4), config.read32(offset + 8),
                            config.read32(offset + 12)};
        if (type - 1 == static_cast<unsigned>(Structure::notify))
            multiplier = config.read32(offset + 16);
        return false;
    };
    each_capability(config, look);
    const unsigned bar = places[0].bar;
    if (bar >= 6 || !found->bars[bar])
        return fail(ErrorCode::unsupported, "the virtio-iommu has no common structure",
                    {"bar", bar});
    const std::uint64_t size = found->info.bars[bar].size.value();
    for (const Place& each : places)
        if (each.bar != bar || each.offset > size || each.bytes > size - each.offset)
            return fail(ErrorCode::unsupported,
                        "a structure of the virtio-iommu lies outside of the first one's BAR",
                        {"bar", each.bar}, {"offset", each.offset}, {"bytes", each.bytes});
    config.write16(pci::command, config.read16(pci::command) | pci::command_master);
    const auto offset_of = [&](Structure which) {
        return std::uint64_t{places[static_cast<std::size_t>(which)].offset};
    };
    return VirtioFunction{{*found->bars[bar], ByteCount(size)},
                          {.common = offset_of(Structure::common),
                           .notify = offset_of(Structure::notify),
                           .notify_multiplier = multiplier,
                           .device = offset_of(Structure::device)}};
}

} // namespace moat::machine::qemu
