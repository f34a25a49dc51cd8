// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Containers and groups: which groups share an IOMMU, and how long.
#pragma once

#include "run/vfio_kernel/type1.hpp"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace moat::run::vfio {

struct Group;

/// Lives as long as its file and its groups.
struct Container {
    std::optional<Type1> iommu = {};
    std::vector<const Group*> groups = {};
};

/// A group's file lives as long as its devices' files.
struct Group {
    unsigned number = 0;
    std::vector<Device> devices = {};
    bool open = false;
    unsigned device_files = 0; ///< opened through it
    unsigned bound = 0;        ///< devices that an iommufd has
    std::shared_ptr<Container> container = {};

    [[nodiscard]] bool busy() const { return open || device_files != 0 || bound != 0; }
};

[[nodiscard]] Answer container_request(Host& host, Container& container, unsigned long request,
                                       std::uint64_t number, std::span<std::byte> argument);

/// Requests of a group but VFIO_GROUP_SET_CONTAINER and VFIO_GROUP_GET_DEVICE_FD, which need files.
[[nodiscard]] Answer group_request(Host& host, Group& group, unsigned long request,
                                   std::span<std::byte> argument);

/// Return: an error of errno.
[[nodiscard]] int join(Host& host, Group& group, std::shared_ptr<Container> container);

/// The last group takes the container's IOMMU and all mappings with it.
void leave(Host& host, Group& group);

} // namespace moat::run::vfio
