// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device as vfio-pci shows it: what it is made of, its interrupts, resets. How its file is opened
// does not matter here.
#pragma once

#include "moat/core/function_ref.hpp"

#include "run/vfio_kernel/interrupts.hpp"

#include <span>
#include <vector>

namespace moat::run::vfio {

class VfioDevice {
  public:
    VfioDevice(Host& host, Device number)
        : host_(&host), number_(number), interrupts_(host, number) {}

    /// But of a reset of its bus.
    [[nodiscard]] Answer request(unsigned long request, std::span<std::byte> argument);

    /// The devices that a reset of its bus resets, itself among them; none if there is no such
    /// reset: on a root bus.
    [[nodiscard]] std::vector<Device> on_bus() const;

    /// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO with these flags; `name`: the number by which the program
    /// knows another device.
    [[nodiscard]] Answer hot_reset_info(std::span<std::byte> argument, std::uint32_t flags,
                                        FunctionRef<std::uint32_t(Device)> name) const;

    void open() { ++files_; }

    /// The last file's end resets the device.
    void close();

    [[nodiscard]] bool is_open() const { return files_ != 0; }

  private:
    [[nodiscard]] const DeviceShape& shape() const { return host_->devices[number_]; }

    [[nodiscard]] Answer info(std::span<std::byte> argument) const;
    [[nodiscard]] Answer region_info(std::span<std::byte> argument) const;

    Host* host_;
    Device number_;
    Interrupts interrupts_;
    unsigned files_ = 0;
};

} // namespace moat::run::vfio
