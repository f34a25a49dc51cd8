// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/vfio_kernel/device.hpp"

#include "machine/vfio_host/uapi.hpp"
#include "run/vfio_kernel/argument.hpp"

namespace moat::run::vfio {
namespace {

/// Region offsets in a device file are its index above so many bits.
constexpr unsigned region_shift = 40;

/// Features of migration and of power are absent, as on devices and kernels that lack them.
[[nodiscard]] Answer feature(std::span<const std::byte> argument) {
    constexpr std::uint32_t methods = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
    constexpr std::uint32_t known = VFIO_DEVICE_FEATURE_MASK | methods | VFIO_DEVICE_FEATURE_PROBE;
    vfio_device_feature feature{};
    if (const int error = take(argument, sizeof feature, feature))
        return answer(error);
    const bool probes = (feature.flags & VFIO_DEVICE_FEATURE_PROBE) != 0;
    if ((feature.flags & ~known) != 0 || (!probes && (feature.flags & methods) == methods))
        return answer(EINVAL);
    return answer(ENOTTY);
}

} // namespace

Answer VfioDevice::request(unsigned long request, std::span<std::byte> argument) {
    switch (request) {
    case VFIO_DEVICE_GET_INFO:
        return info(argument);
    case VFIO_DEVICE_GET_REGION_INFO:
        return region_info(argument);
    case VFIO_DEVICE_GET_IRQ_INFO:
        return interrupts_.info(argument);
    case VFIO_DEVICE_SET_IRQS:
        return interrupts_.set(argument);
    case VFIO_DEVICE_RESET:
        if (!shape().resets)
            return answer(EINVAL);
        host_->effects.reset(number_);
        return {};
    case VFIO_DEVICE_FEATURE:
        return feature(argument);
    default:
        return answer(ENOTTY);
    }
}

Answer VfioDevice::info(std::span<std::byte> argument) const {
    vfio_device_info info{};
    if (const int error = take(argument, offsetof(vfio_device_info, cap_offset), info))
        return answer(error);
    // Behind the counts: no capabilities, and padding.
    const std::array<std::uint32_t, 6> all = {
        info.argsz, VFIO_DEVICE_FLAGS_PCI | (shape().resets ? VFIO_DEVICE_FLAGS_RESET : 0U),
        VFIO_PCI_NUM_REGIONS, VFIO_PCI_NUM_IRQS};
    give(argument, all, info.argsz);
    return {};
}

Answer VfioDevice::region_info(std::span<std::byte> argument) const {
    vfio_region_info info{};
    if (const int error = take(argument, sizeof info, info))
        return answer(error);
    // No device is a VGA device.
    if (info.index >= VFIO_PCI_VGA_REGION_INDEX)
        return answer(EINVAL);
    const machine::soft::Face::Region& region = shape().regions[info.index];
    info.offset = std::uint64_t{info.index} << region_shift;
    info.size = region.size.value();
    info.flags = 0;
    if (info.size != 0) {
        info.flags |= region.readable ? VFIO_REGION_INFO_FLAG_READ : 0U;
        info.flags |= region.writable ? VFIO_REGION_INFO_FLAG_WRITE : 0U;
        info.flags |= region.mappable ? VFIO_REGION_INFO_FLAG_MMAP : 0U;
    }
    CapabilityChain chain(sizeof info);
    if (info.size != 0 && info.index == shape().msix_region)
        chain.add(VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, std::span<const std::byte>());
    chain.place(argument, info.argsz, info.flags, VFIO_REGION_INFO_FLAG_CAPS, info.cap_offset);
    give(argument, info);
    return {};
}

std::vector<Device> VfioDevice::on_bus() const {
    std::vector<Device> found;
    const machine::Bdf own = shape().address;
    for (Device each = 0; own.bus() != 0 && each != host_->devices.size(); ++each)
        if (const machine::Bdf other = host_->devices[each].address;
            other.segment() == own.segment() && other.bus() == own.bus())
            found.push_back(each);
    return found;
}

Answer VfioDevice::hot_reset_info(std::span<std::byte> argument, std::uint32_t flags,
                                  FunctionRef<std::uint32_t(Device)> name) const {
    struct { // vfio_pci_hot_reset_info without its entries
        std::uint32_t argsz;
        std::uint32_t flags;
        std::uint32_t count;
    } info{};

    if (const int error = take(argument, sizeof info, info))
        return answer(error);
    const std::vector<Device> devices = on_bus();
    if (devices.empty())
        return answer(ENODEV);
    info.flags = flags;
    info.count = static_cast<std::uint32_t>(devices.size());
    give(argument, info);
    std::size_t at = sizeof info;
    for (const Device each : devices) {
        const DeviceShape& other = host_->devices[each];
        const vfio_pci_dependent_device entry{
            .group_id = name(each),
            .segment = other.address.segment(),
            .bus = static_cast<std::uint8_t>(other.address.bus()),
            .devfn = static_cast<std::uint8_t>(other.address.requester() & 0xff)};
        if (info.argsz < at + sizeof entry)
            return answer(ENOSPC);
        if (argument.size() < at + sizeof entry)
            return answer(EFAULT);
        give(argument.subspan(at), entry);
        at += sizeof entry;
    }
    return {};
}

void VfioDevice::close() {
    if (--files_ != 0)
        return;
    interrupts_.disable_all();
    host_->effects.closed(number_);
}

} // namespace moat::run::vfio
