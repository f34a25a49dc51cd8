// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backend of Linux VFIO: the kernel's tables, real devices. What a domain promises is known
// with its first device, so the space begins there. Faults are reported by `poll`.
#include "engines.hpp"
#include "machine/vfio_host/vfio_machine.hpp"
#include "space_core.hpp"

#include <mutex>
#include <utility>
#include <vector>

namespace moat::api {

namespace {

using machine::vfio_host::KernelDomain;
using machine::vfio_host::VfioMachine;

/// The machine is used by one thread at a time.
struct Host {
    std::mutex mutex;
    std::unique_ptr<VfioMachine> machine;
};

class VfioDevice final : public AttachedDevice {
  public:
    /// Of a function that is attached.
    VfioDevice(machine::Bdf address, Host& host) : AttachedDevice(address), host_(host) {}

    [[nodiscard]] Result<Access> read(Iova /*from*/, std::span<std::byte> /*into*/) override {
        return not_ours();
    }

    [[nodiscard]] Result<Access> write(Iova /*to*/, std::span<const std::byte> /*from*/) override {
        return not_ours();
    }

    [[nodiscard]] Result<machine::Registers*> bar(unsigned index) override {
        const std::lock_guard lock(host_.mutex);
        return function_->bar(index);
    }

    [[nodiscard]] Result<std::span<std::byte>> bar_memory(unsigned index) override {
        const std::lock_guard lock(host_.mutex);
        return host_.machine->bar_memory(address(), index);
    }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
        if (wanted == 0)
            return fail(ErrorCode::empty, "no interrupt vectors are wanted");
        const std::lock_guard lock(host_.mutex);
        const auto enabled = function_->enable_interrupts(wanted);
        vectors_ = enabled.value_or(0);
        return enabled;
    }

    [[nodiscard]] Result<bool> take_interrupt(unsigned vector) override {
        const std::lock_guard lock(host_.mutex);
        if (vector >= vectors_)
            return fail(ErrorCode::out_of_range, "this interrupt vector is not enabled",
                        {"vector", vector}, {"enabled", vectors_});
        return function_->take_interrupt(vector);
    }

    Result<void> raise_interrupt(unsigned /*vector*/) override { return not_ours(); }

    /// One that knows no reset is quiet all the same, because it may not master the bus any more.
    void stop() override {
        const std::lock_guard lock(host_.mutex);
        if (function_ == nullptr)
            return;
        function_->set_bus_master(false);
        (void)function_->reset();
        function_.reset();
        vectors_ = 0;
    }

    /// Opens the function, and lets it access memory. Errors: VfioMachine::open's.
    [[nodiscard]] Result<void> restart(DeviceModel* model) override {
        if (model != nullptr)
            return no_models();
        const std::lock_guard lock(host_.mutex);
        auto opened = host_.machine->open(address());
        if (!opened)
            return std::unexpected(opened.error());
        function_ = std::move(*opened);
        function_->set_bus_master(true);
        return {};
    }

    void leave() override {
        const std::lock_guard lock(host_.mutex);
        (void)host_.machine->detach(address());
    }

    [[nodiscard]] static std::unexpected<Error> no_models() {
        return fail(ErrorCode::unsupported, "VFIO has real devices: models are for Backend::soft");
    }

  private:
    [[nodiscard]] static std::unexpected<Error> not_ours() {
        return fail(ErrorCode::unsupported,
                    "a real device accesses memory and raises interrupts by itself");
    }

    Host& host_;
    std::unique_ptr<machine::Function> function_;
    unsigned vectors_ = 0;
};

class VfioCore final : public SpaceCore<KernelSpace> {
  public:
    VfioCore(const ContainerConfig& config, const dma::Options& options,
             std::unique_ptr<VfioMachine> machine, std::unique_ptr<KernelDomain> domain)
        : SpaceCore(config, options), config_(space_config(config, options)),
          domain_(std::move(domain)) {
        host_.machine = std::move(machine);
    }

    ~VfioCore() override { end_space(); }

    [[nodiscard]] Backend backend() const override {
        return host_.machine->backend() == machine::vfio_host::Backend::type1 ? Backend::type1
                                                                              : Backend::iommufd;
    }

    /// Type 1 forgets what is mapped with its last device.
    [[nodiscard]] bool needs_a_device() override {
        return space() != nullptr && space()->stats().live_ranges != 0;
    }

    [[nodiscard]] Result<std::shared_ptr<AttachedDevice>> make_device(machine::Bdf address,
                                                                      DeviceModel* model) override {
        if (model != nullptr)
            return VfioDevice::no_models();
        auto device = std::make_shared<VfioDevice>(address, host_);
        {
            const std::lock_guard lock(host_.mutex);
            if (const auto attached = host_.machine->attach(address, *domain_); !attached)
                return std::unexpected(attached.error());
        }
        const auto begun = [&]() -> Result<void> {
            if (const auto opened = device->restart(nullptr); !opened)
                return opened;
            return space() != nullptr ? Result<void>() : begin_space(*domain_, config_);
        }();
        if (!begun) {
            device->stop();
            device->leave();
            return std::unexpected(begun.error());
        }
        return device;
    }

    /// Collected first, so that a listener may attach and detach.
    [[nodiscard]] Result<PolledFaults> poll() override {
        std::vector<fault::Record> records;
        const auto keep = [&](const fault::Record& record) { records.push_back(record); };
        const auto lost = [&] {
            const std::lock_guard lock(host_.mutex);
            return host_.machine->take_faults(keep);
        }();
        if (!lost)
            return std::unexpected(lost.error());
        if (space() != nullptr)
            for (const fault::Record& each : records)
                space()->fault(each);
        return PolledFaults{records.size(), *lost};
    }

  private:
    const dma::SpaceConfig config_;
    Host host_;
    std::unique_ptr<KernelDomain> domain_;
};

} // namespace

Result<std::unique_ptr<Core>> open_vfio(const ContainerConfig& config,
                                        const dma::Options& options) {
    using machine::vfio_host::Backend;
    const std::optional<Backend> which =
        config.backend == moat::Backend::type1     ? std::optional(Backend::type1)
        : config.backend == moat::Backend::iommufd ? std::optional(Backend::iommufd)
                                                   : std::nullopt;
    auto machine = VfioMachine::open({.backend = which});
    if (!machine)
        return std::unexpected(machine.error());
    auto domain = (*machine)->create_kernel_domain();
    if (!domain)
        return std::unexpected(domain.error());
    return std::make_unique<VfioCore>(config, options, std::move(*machine), std::move(*domain));
}

} // namespace moat::api
