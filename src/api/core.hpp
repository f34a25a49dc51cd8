// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Core: what a Container of moat.hpp points to, whatever bounds its devices. It owns the attached
// devices and the labels, and calls the listeners. space_core.hpp adds the mappings, soft_core.cpp
// and machine_core.hpp the domain.
#pragma once

#include "moat/iommu/domain.hpp"
#include "moat/moat.hpp"

#include "attached_device.hpp"
#include "dma/reporter.hpp"
#include "labels.hpp"
#include "link.hpp"
#include "machine/pci.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <string_view>
#include <vector>

namespace moat::api {

/// Return: what `act` does; no_memory where it throws std::bad_alloc.
template <class Act>
[[nodiscard, gnu::always_inline]] inline auto with_memory(Act&& act) -> decltype(act()) {
    try {
        return act();
    } catch (const std::bad_alloc&) {
        return fail(ErrorCode::no_memory, "there is no memory left");
    }
}

/// Which side owns bytes from a sync on.
enum class SyncFor : std::uint8_t { device, cpu };

/// Thread-safe, except `close`. Functions return what moat.hpp says.
class Core : public Mapper {
  public:
    ~Core() override;

    /// Memory that the devices can reach, once it is mapped.
    [[nodiscard]] virtual Result<Buffer> allocate(std::size_t bytes);
    [[nodiscard]] virtual Result<Mapping> map_coherent(const Memory& memory,
                                                       std::string_view label) = 0;
    /// `region` is where this process sees registers.
    [[nodiscard]] virtual Result<Mapping>
    map_region(std::span<std::byte> region, Direction direction, std::string_view label) = 0;
    [[nodiscard]] virtual Result<ListMapping> map_list(std::span<const Memory> pieces,
                                                       Direction direction,
                                                       const SegmentLimits& limits,
                                                       std::string_view label) = 0;
    virtual Result<void> unmap(std::uint64_t iova, std::size_t bytes, Direction direction) = 0;
    virtual Result<void> sync(SyncFor whom, std::uint64_t iova, std::uint64_t offset,
                              std::size_t bytes) = 0;
    virtual Result<void> poison(std::uint64_t iova, std::size_t bytes) = 0;
    virtual Result<void> unpoison(std::uint64_t iova, std::size_t bytes) = 0;
    virtual Result<void> flush() = 0;
    virtual Result<void> report_living() = 0;
    [[nodiscard]] virtual Result<PolledFaults> poll() = 0;
    [[nodiscard]] virtual Result<ContainerLimits> limits() = 0;

    [[nodiscard]] Result<Device> attach(machine::Bdf address, DeviceModel* model);
    Result<void> detach(AttachedDevice& device);
    /// The device accesses nothing from the return on, and is detached as soon as can be.
    void abandon(AttachedDevice& device);

    /// After it nothing but the end comes. Errors: busy (a listener calls).
    Result<void> close();

    /// Whether unmapped memory may be reached until a flush.
    [[nodiscard]] bool defers() const { return defers_; }

  protected:
    Core(const ContainerConfig& config, const dma::Options& options);

    // Without a space.
    static Result<Iova> map_nothing(Mapper& core, const Memory& memory, Direction direction,
                                    std::string_view label);
    static void end_nothing(Mapper& core, std::uint64_t iova, std::size_t bytes,
                            Direction direction, Block* block) noexcept;

    /// The function, able to access memory.
    [[nodiscard]] virtual Result<std::shared_ptr<AttachedDevice>>
    make_device(machine::Bdf address, DeviceModel* model) = 0;
    /// The same for one that was stopped and is still attached; the other object is not used again,
    /// so that its registers stay refused. Errors: unsupported (with a model), io.
    [[nodiscard]] virtual Result<std::shared_ptr<AttachedDevice>>
    reopen_device(machine::Bdf address, DeviceModel* model);
    /// Whether what is mapped needs a device to stay attached, and something is mapped.
    [[nodiscard]] virtual bool needs_a_device() = 0;
    /// Reports what is still mapped, and unmaps it. Every device is stopped.
    virtual void end_space() = 0;
    [[nodiscard]] virtual std::uint64_t page_bytes() = 0;

    [[nodiscard]] dma::Listener listener();

    /// The error of a container that has no space yet, or none any more.
    [[nodiscard]] std::unexpected<Error> no_space_yet() const;

    [[nodiscard]] Labels& labels() { return labels_; }

  private:
    void report(const fault::Diagnosis& diagnosis) noexcept;
    void report(const dma::DriverError& error) noexcept;
    [[nodiscard]] Result<Device> attach_again(std::shared_ptr<AttachedDevice>& known,
                                              DeviceModel* model);

    const bool defers_;
    const std::function<void(const Fault&)> on_fault_;
    const std::function<void(const DriverError&)> on_driver_error_;
    dma::Reporter to_stderr_;
    const dma::Listener stderr_listener_;
    Labels labels_;
    std::mutex devices_mutex_;
    std::vector<std::shared_ptr<AttachedDevice>> devices_;
    std::atomic<unsigned> in_listeners_{0};
    std::atomic<bool> closing_{false};
};

inline Core* Link::core() const {
    return static_cast<Core*>(mapper());
}

/// The backends. Errors: Container::open's.
[[nodiscard]] Result<std::unique_ptr<Core>> open_soft(const ContainerConfig& config,
                                                      const dma::Options& options);
[[nodiscard]] Result<std::unique_ptr<Core>> open_vfio(const ContainerConfig& config,
                                                      const dma::Options& options);
[[nodiscard]] Result<std::unique_ptr<Core>> open_qemu(const ContainerConfig& config,
                                                      const dma::Options& options);

} // namespace moat::api
