// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a container stands on: a domain with its DMA space, and devices in it. One is in this
// process, one is Linux's. container.hpp owns one; entries.cpp calls it.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/space.hpp"
#include "moat/fault/record.hpp"
#include "moat/iommu/domain.hpp"
#include "moat/moat.h"

#include "machine/pci.hpp"
#include "machine/vfio_host/kernel_domain.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace moat::c_api {

/// How far an access of a device came.
struct Access {
    std::size_t done = 0;
    bool refused = false;
};

/// A function that is attached; it reaches nothing any more once it ends.
class Device {
  public:
    virtual ~Device() = default;
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    /// As if the device did so. One thread at a time. Errors: unsupported (it is real).
    [[nodiscard]] virtual Result<Access> read(Iova from, std::span<std::byte> into) = 0;
    [[nodiscard]] virtual Result<Access> write(Iova to, std::span<const std::byte> from) = 0;

    /// Where this process sees a BAR. Errors: not_found, unsupported, io.
    [[nodiscard]] virtual Result<std::span<std::byte>> bar(unsigned index) = 0;

    /// From the return on it accesses nothing; it is still attached.
    virtual void stop() = 0;

  protected:
    Device() = default;
};

struct Limits {
    iommu::DomainLimits domain;
    dma::Options options;
};

/// Thread-safe. Functions return what the space does (dma/space.hpp).
class Backend {
  public:
    virtual ~Backend() = default;
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;

    /// MOAT_BACKEND_...
    [[nodiscard]] virtual std::int32_t number() const = 0;

    /// Errors: refused (not known before a device is attached).
    [[nodiscard]] virtual Result<Limits> limits() = 0;

    /// The device ends before the backend. Errors: not_found, busy, mismatch, no_memory, ...
    [[nodiscard]] virtual Result<std::unique_ptr<Device>> attach(machine::Bdf address) = 0;

    /// Whether what is mapped needs a device to stay attached, and something is mapped.
    [[nodiscard]] virtual bool needs_a_device() = 0;

    [[nodiscard]] virtual Result<Iova> map(const dma::Memory& memory, dma::Direction direction,
                                           std::string_view label) = 0;
    [[nodiscard]] virtual Result<void> unmap(Iova iova, ByteCount size,
                                             dma::Direction direction) = 0;
    [[nodiscard]] virtual Result<void> sync_for_device(Iova iova, ByteCount offset,
                                                       ByteCount size) = 0;
    [[nodiscard]] virtual Result<void> sync_for_cpu(Iova iova, ByteCount offset,
                                                    ByteCount size) = 0;
    [[nodiscard]] virtual Result<void> flush() = 0;

    struct Told {
        std::uint64_t told = 0;
        std::uint64_t lost = 0;
    };

    /// Tells of the faults that came since. Errors: io.
    [[nodiscard]] virtual Result<Told> poll() = 0;

    /// Reports what is mapped still, and unmaps it. Every device is stopped; nothing but the end
    /// comes after.
    virtual void end_space() = 0;

  protected:
    Backend() = default;
};

/// `tables`: how many pages of 4 KiB for tables. Errors: Space::create's, no_memory.
[[nodiscard]] Result<std::unique_ptr<Backend>> open_soft(const dma::SpaceConfig& config,
                                                         std::size_t tables);

/// None: the kernel is asked for the best. Errors: VfioMachine::open's.
[[nodiscard]] Result<std::unique_ptr<Backend>>
open_vfio(const dma::SpaceConfig& config, std::optional<machine::vfio_host::Backend> which);

} // namespace moat::c_api
