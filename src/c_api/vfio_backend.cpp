// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backend of Linux VFIO: the kernel's tables, real devices. What a domain promises is known
// with its first device, so the space begins there. Faults are told when somebody polls.
#include "moat/sync/real.hpp"

#include "machine/vfio_host/vfio_machine.hpp"
#include "space_backend.hpp"

#include <mutex>
#include <utility>
#include <vector>

namespace moat::c_api {

namespace {

using machine::vfio_host::KernelDomain;
using machine::vfio_host::VfioMachine;
using KernelSpace = dma::Space<KernelDomain, RealSync>;

/// The machine is used by one thread at a time.
struct Host {
    std::mutex mutex;
    std::unique_ptr<VfioMachine> machine;
};

class VfioDevice final : public Device {
  public:
    VfioDevice(Host& host, machine::Bdf address, std::unique_ptr<machine::Function> function)
        : host_(host), address_(address), function_(std::move(function)) {}

    ~VfioDevice() override {
        stop();
        const std::lock_guard lock(host_.mutex);
        (void)host_.machine->detach(address_);
    }

    [[nodiscard]] Result<Access> read(Iova /*from*/, std::span<std::byte> /*into*/) override {
        return not_ours();
    }

    [[nodiscard]] Result<Access> write(Iova /*to*/, std::span<const std::byte> /*from*/) override {
        return not_ours();
    }

    [[nodiscard]] Result<std::span<std::byte>> bar(unsigned index) override {
        const std::lock_guard lock(host_.mutex);
        return host_.machine->bar_memory(address_, index);
    }

    /// One that knows no reset is quiet all the same, because it may not master the bus any more.
    void stop() override {
        const std::lock_guard lock(host_.mutex);
        if (function_ == nullptr)
            return;
        function_->set_bus_master(false);
        (void)function_->reset();
        function_.reset();
    }

  private:
    [[nodiscard]] static std::unexpected<Error> not_ours() {
        return fail(ErrorCode::unsupported, "a real device accesses memory by itself");
    }

    Host& host_;
    const machine::Bdf address_;
    std::unique_ptr<machine::Function> function_;
};

class VfioBackend final : public SpaceBackend<KernelSpace> {
  public:
    VfioBackend(std::unique_ptr<VfioMachine> machine, std::unique_ptr<KernelDomain> domain,
                const dma::SpaceConfig& config)
        : config_(config), domain_(std::move(domain)) {
        host_.machine = std::move(machine);
    }

    ~VfioBackend() override { end_space(); }

    [[nodiscard]] std::int32_t number() const override {
        return host_.machine->backend() == machine::vfio_host::Backend::type1
                   ? MOAT_BACKEND_TYPE1
                   : MOAT_BACKEND_IOMMUFD;
    }

    /// Type 1 forgets what is mapped with its last device.
    [[nodiscard]] bool needs_a_device() override {
        return space() != nullptr && space()->stats().live_ranges != 0;
    }

    [[nodiscard]] Result<std::unique_ptr<Device>> attach(machine::Bdf address) override {
        auto function = [&]() -> Result<std::unique_ptr<machine::Function>> {
            const std::lock_guard lock(host_.mutex);
            if (const auto attached = host_.machine->attach(address, *domain_); !attached)
                return std::unexpected(attached.error());
            auto opened = host_.machine->open(address);
            if (!opened)
                (void)host_.machine->detach(address);
            return opened;
        }();
        if (!function)
            return std::unexpected(function.error());
        machine::Function& opened = **function;
        auto device = std::make_unique<VfioDevice>(host_, address, std::move(*function));
        if (space() == nullptr) {
            auto space = KernelSpace::create(*domain_, config_);
            if (!space)
                return std::unexpected(space.error());
            begin_space(std::move(*space));
        }
        const std::lock_guard lock(host_.mutex);
        opened.set_bus_master(true);
        return device;
    }

    /// Collected first, so that a callback may attach and detach.
    [[nodiscard]] Result<Told> poll() override {
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
        return Told{records.size(), *lost};
    }

  private:
    const dma::SpaceConfig config_;
    Host host_;
    std::unique_ptr<KernelDomain> domain_;
};

} // namespace

Result<std::unique_ptr<Backend>> open_vfio(const dma::SpaceConfig& config,
                                           std::optional<machine::vfio_host::Backend> which) {
    auto machine = VfioMachine::open({.backend = which});
    if (!machine)
        return std::unexpected(machine.error());
    auto domain = (*machine)->create_kernel_domain();
    if (!domain)
        return std::unexpected(domain.error());
    return std::make_unique<VfioBackend>(std::move(*machine), std::move(*domain), config);
}

} // namespace moat::c_api
