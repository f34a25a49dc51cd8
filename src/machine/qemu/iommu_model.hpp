// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// IommuModel: QEMU's IOMMUs by name, for those who choose one. board.hpp has what follows from it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::machine::qemu {

/// The IOMMU of a QEMU machine, which decides what else it consists of.
enum class IommuModel : std::uint8_t {
    intel,  ///< q35 with VT-d
    amd,    ///< q35 with AMD's
    smmuv3, ///< Arm's virt with an SMMUv3
    virtio, ///< q35 with a virtio-iommu, itself a function on the bus
    none,   ///< q35 without: devices reach all of memory
};

inline constexpr std::array<std::string_view, 5> iommu_names = {"intel", "amd", "smmuv3", "virtio",
                                                                "none"};

[[nodiscard]] constexpr std::string_view name(IommuModel iommu) {
    return iommu_names[static_cast<std::size_t>(iommu)];
}

[[nodiscard]] constexpr std::optional<IommuModel> iommu_named(std::string_view text) {
    const auto found = std::ranges::find(iommu_names, text);
    if (found == iommu_names.end())
        return std::nullopt;
    return static_cast<IommuModel>(found - iommu_names.begin());
}

} // namespace moat::machine::qemu
