// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backend of Linux VFIO: the kernel's tables, real devices.
#include "machine/vfio_host/vfio_machine.hpp"
#include "machine_core.hpp"

#include <utility>

namespace moat::api {

namespace {

using machine::vfio_host::VfioMachine;

class VfioDevice final : public MachineDevice {
  public:
    VfioDevice(machine::Bdf address, Host& host, VfioMachine& machine)
        : MachineDevice(address, host), machine_(machine) {}

    [[nodiscard]] Result<std::span<std::byte>> bar_memory(unsigned index) override {
        const std::lock_guard lock(host().mutex);
        return machine_.bar_memory(address(), index);
    }

  private:
    VfioMachine& machine_;
};

class VfioCore final : public MachineCore {
  public:
    VfioCore(const ContainerConfig& config, const dma::Options& options, std::shared_ptr<Host> host,
             std::unique_ptr<machine::Domain> domain, machine::Domain& below, VfioMachine& machine)
        : MachineCore(config, options, std::move(host), std::move(domain), below),
          machine_(machine) {}

    ~VfioCore() override { end_space(); }

    [[nodiscard]] Backend backend() const override {
        return machine_.backend() == machine::vfio_host::Backend::type1 ? Backend::type1
                                                                        : Backend::iommufd;
    }

    /// Type 1 forgets what is mapped with its last device.
    [[nodiscard]] bool needs_a_device() override {
        return space() != nullptr && space()->stats().live_ranges != 0;
    }

    [[nodiscard]] std::shared_ptr<MachineDevice> new_device(machine::Bdf address) override {
        return std::make_shared<VfioDevice>(address, *host(), machine_);
    }

  private:
    VfioMachine& machine_;
};

} // namespace

Result<std::unique_ptr<Core>> open_vfio(const ContainerConfig& config,
                                        const dma::Options& options) {
    using machine::vfio_host::Backend;
    const std::optional<Backend> which =
        config.backend == moat::Backend::type1     ? std::optional(Backend::type1)
        : config.backend == moat::Backend::iommufd ? std::optional(Backend::iommufd)
                                                   : std::nullopt;
    MOAT_LET(auto opened, VfioMachine::open({.backend = which}));
    VfioMachine& machine = *opened;
    MOAT_LET(auto domain, machine.create_domain());
    auto host = std::make_shared<Host>();
    host->machine = std::move(opened);
    machine::Domain& below = *domain;
    return std::make_unique<VfioCore>(config, options, std::move(host), std::move(domain), below,
                                      machine);
}

} // namespace moat::api
