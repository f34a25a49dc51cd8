// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The part of a core that is the same for every Machine: devices are its functions, and faults are
// reported by `poll`. vfio_core.cpp and qemu_core.cpp open the machines.
#pragma once

#include "engines.hpp"
#include "machine/machine.hpp"
#include "space_core.hpp"

#include <memory>
#include <mutex>

namespace moat::api {

/// A machine, which one thread uses at a time.
struct Host {
    std::mutex mutex;
    std::unique_ptr<machine::Machine> machine;
};

/// A function of a machine, once it is attached.
class MachineDevice : public AttachedDevice {
  public:
    MachineDevice(machine::Bdf address, Host& host) : AttachedDevice(address), host_(host) {}

    [[nodiscard]] Result<Access> read(Iova from, std::span<std::byte> into) final;
    [[nodiscard]] Result<Access> write(Iova to, std::span<const std::byte> from) final;
    [[nodiscard]] Result<machine::Registers*> bar(unsigned index) override;
    [[nodiscard]] Result<std::span<std::byte>> bar_memory(unsigned index) override;
    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) final;
    [[nodiscard]] Result<bool> take_interrupt(unsigned vector) final;
    Result<void> raise_interrupt(unsigned vector) final;

    /// One that knows no reset is quiet all the same, because it may not master the bus any more.
    void stop() final;

    /// Once: opens the function, and lets it access memory. Errors: Machine::open's.
    [[nodiscard]] Result<void> start();

    void leave() final;

  protected:
    [[nodiscard]] Host& host() { return host_; }

  private:
    Host& host_;
    std::unique_ptr<machine::Function> function_;
    unsigned vectors_ = 0;
};

/// What a domain promises may be known with its first device only: so the space begins there, if
/// `begin` was not called before. Who derives from it calls `end_space` in its destructor.
class MachineCore : public SpaceCore<MachineSpace> {
  public:
    /// `domain` is the machine's, or what the space sees of it.
    MachineCore(const ContainerConfig& config, const dma::Options& options,
                std::shared_ptr<Host> host, std::unique_ptr<machine::Domain> domain,
                machine::Domain& machines)
        : SpaceCore(config, options), config_(space_config(config, options)),
          host_(std::move(host)), domain_(std::move(domain)), machines_domain_(machines) {}

    /// Errors: Space::create's.
    [[nodiscard]] Result<void> begin() { return begin_space(*domain_, config_); }

    [[nodiscard]] Result<std::shared_ptr<AttachedDevice>> make_device(machine::Bdf address,
                                                                      DeviceModel* model) final;

    [[nodiscard]] Result<std::shared_ptr<AttachedDevice>> reopen_device(machine::Bdf address,
                                                                        DeviceModel* model) final;

    /// Records are collected first, so that a listener may attach and detach.
    [[nodiscard]] Result<PolledFaults> poll() final;

  protected:
    [[nodiscard]] virtual std::shared_ptr<MachineDevice> new_device(machine::Bdf address) = 0;

    [[nodiscard]] const std::shared_ptr<Host>& host() const { return host_; }

    dma::SpaceConfig config_;

  private:
    const std::shared_ptr<Host> host_;
    const std::unique_ptr<machine::Domain> domain_;
    machine::Domain& machines_domain_;
};

} // namespace moat::api
