// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Type1: a container's IOMMU, version 1 or 2: information, map and unmap.
#pragma once

#include "run/vfio_kernel/mappings.hpp"

#include <span>

namespace moat::run::vfio {

/// Version 2 unmaps whole mappings only; version 1 may unmap more than the program asked for.
enum class Type1Version : std::uint8_t { v1, v2 };

class Type1 {
  public:
    Type1(Host& host, Type1Version version) : host_(&host), version_(version), mappings_(host) {}

    [[nodiscard]] Answer request(unsigned long request, std::span<std::byte> argument);

    [[nodiscard]] Space space() const { return mappings_.space(); }

    void unmap_all() { (void)mappings_.remove_all(); }

    /// Whether VFIO_CHECK_EXTENSION reports it.
    [[nodiscard]] static bool has_extension(std::uint64_t extension);

  private:
    [[nodiscard]] Answer info(std::span<std::byte> argument) const;
    [[nodiscard]] Answer map(std::span<const std::byte> argument);
    [[nodiscard]] Answer unmap(std::span<std::byte> argument);
    /// Whether `range` has a part of a mapping; `first` is the first one in it.
    [[nodiscard]] bool bisects(IovaRange range, Mappings::Iterator first) const;

    Host* host_;
    Type1Version version_;
    Mappings mappings_;
};

} // namespace moat::run::vfio
