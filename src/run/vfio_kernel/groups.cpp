// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/vfio_kernel/groups.hpp"

#include "machine/vfio_host/uapi.hpp"
#include "run/vfio_kernel/argument.hpp"

#include <utility>

namespace moat::run::vfio {
namespace {

void attach(Host& host, const Group& group, Space space) {
    for (const Device device : group.devices)
        host.effects.attach(device, space);
}

// Rare, and large: inlined, it would cost each map and unmap.
[[nodiscard, gnu::noinline]] Answer set_iommu(Host& host, Container& container,
                                              std::uint64_t type) {
    if (container.groups.empty() || container.iommu)
        return answer(EINVAL);
    if (type != VFIO_TYPE1_IOMMU && type != VFIO_TYPE1v2_IOMMU)
        return answer(Type1::has_extension(type) ? EINVAL : ENODEV);
    container.iommu.emplace(host, type == VFIO_TYPE1_IOMMU ? Type1Version::v1 : Type1Version::v2);
    for (const Group* const each : container.groups)
        attach(host, *each, container.iommu->space());
    return {};
}

} // namespace

Answer container_request(Host& host, Container& container, unsigned long request,
                         std::uint64_t number, std::span<std::byte> argument) {
    switch (request) {
    case VFIO_GET_API_VERSION:
        return {.value = VFIO_API_VERSION};
    case VFIO_CHECK_EXTENSION:
        return {.value = Type1::has_extension(number) ? 1 : 0};
    case VFIO_SET_IOMMU:
        return set_iommu(host, container, number);
    default:
        return container.iommu ? container.iommu->request(request, argument) : answer(EINVAL);
    }
}

Answer group_request(Host& host, Group& group, unsigned long request,
                     std::span<std::byte> argument) {
    switch (request) {
    case VFIO_GROUP_GET_STATUS: {
        vfio_group_status status{};
        if (const int error = take(argument, sizeof status, status))
            return answer(error);
        status.flags = VFIO_GROUP_FLAGS_VIABLE;
        if (group.container)
            status.flags |= VFIO_GROUP_FLAGS_CONTAINER_SET;
        give(argument, status);
        return {};
    }
    case VFIO_GROUP_UNSET_CONTAINER:
        if (!group.container)
            return answer(EINVAL);
        if (group.device_files != 0)
            return answer(EBUSY);
        leave(host, group);
        return {};
    default:
        return answer(ENOTTY);
    }
}

int join(Host& host, Group& group, std::shared_ptr<Container> container) {
    if (group.container)
        return EINVAL;
    container->groups.push_back(&group);
    group.container = std::move(container);
    if (group.container->iommu)
        attach(host, group, group.container->iommu->space());
    return 0;
}

void leave(Host& host, Group& group) {
    if (!group.container)
        return;
    Container& container = *group.container;
    std::erase(container.groups, &group);
    if (container.iommu) {
        attach(host, group, Space::none);
        if (container.groups.empty()) {
            container.iommu->unmap_all();
            container.iommu.reset();
        }
    }
    group.container.reset();
}

} // namespace moat::run::vfio
