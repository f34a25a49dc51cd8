// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VfioKernel: Linux's VFIO as a state machine: type1 containers and groups, iommufd and device
// files. A request and its bytes give an answer and bytes; what else happens goes through Effects.
// Source: Linux, Documentation/driver-api/vfio.rst, userspace-api/iommufd.rst, and uapi headers.
#pragma once

#include "moat/core/types.hpp"
#include "moat/fault/mapping.hpp"

#include "machine/pci.hpp"
#include "machine/soft/face.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace moat::run {

/// An open file: a container, a group, an iommufd or a device. 0 is none.
enum class File : std::uint32_t { none = 0 };

/// What a set of devices reaches: a container, or an I/O address space of an iommufd.
enum class Space : std::uint32_t { none = 0 };

/// An index into the devices given to VfioKernel.
using Device = std::uint32_t;

/// What VFIO says of a device.
struct DeviceShape {
    machine::Bdf address = {};
    unsigned group = 0; ///< the number of its IOMMU group
    std::array<machine::soft::Face::Region, machine::soft::Face::region_count> regions = {};
    std::array<unsigned, machine::soft::Face::interrupt_kinds> interrupts = {};
    unsigned msix_region = ~0U; ///< the BAR of the MSI-X table
    bool resets = true;         ///< by VFIO_DEVICE_RESET
};

struct VfioLimits {
    std::uint64_t entries = 65'535;                  ///< mappings of a container
    ByteCount locked = ByteCount(~std::uint64_t{0}); ///< RLIMIT_MEMLOCK
    /// Addresses that may be mapped, sorted; none: all of them.
    std::vector<IovaRange> aperture = {};
    std::uint64_t page_sizes = 0x1000; ///< a bit each, at least one
    /// Of the maps whose arguments are right, the `fail_map`-th (from 1) fails with `fail_errno`;
    /// 0: none.
    std::uint64_t fail_map = 0;
    int fail_errno = 0;
};

/// A map of a space: `bytes` at the program's address `memory`.
struct DmaMap {
    Space space = {};
    IovaRange range = {};
    std::uint64_t memory = 0;
    fault::Allows allows = fault::Allows::read_write;
};

/// What the machine asks of its surroundings. Errors are errno's numbers, 0 is success.
class Effects {
  public:
    /// The file behind a descriptor of the program, none if it is not one of VFIO's. Not called
    /// for a negative one.
    [[nodiscard]] virtual File file_of(int descriptor) = 0;
    /// EFAULT if the program has no such memory.
    [[nodiscard]] virtual int map(const DmaMap& map) = 0;
    /// A map of addresses that are free failed, by map() or before; `error` is errno's number.
    virtual void map_failed(const DmaMap& map, int error) = 0;
    /// One mapping, as it was mapped.
    virtual void unmap(const DmaMap& map) = 0;
    /// The device's accesses go through `space`; none: they reach nothing.
    virtual void attach(Device device, Space space) = 0;
    /// `descriptor` is an eventfd of the program; -1: none any more. EBADF; EINVAL if it is no
    /// eventfd.
    [[nodiscard]] virtual int set_interrupt(Device device, machine::soft::InterruptKind kind,
                                            unsigned vector, int descriptor) = 0;
    /// Signals an interrupt's eventfd, as the device would.
    virtual void trigger(Device device, machine::soft::InterruptKind kind, unsigned vector) = 0;
    virtual void mask(Device device, machine::soft::InterruptKind kind, bool masked) = 0;
    virtual void reset(Device device) = 0;
    /// The device's last file was closed, which resets it and ends its bus mastering.
    virtual void closed(Device device) = 0;
    /// Reads and writes the program's memory beyond the argument. EFAULT.
    [[nodiscard]] virtual int read_memory(std::uint64_t address, std::span<std::byte> bytes) = 0;
    [[nodiscard]] virtual int write_memory(std::uint64_t address,
                                           std::span<const std::byte> bytes) = 0;

  protected:
    ~Effects() = default;
};

/// What a request answers: a number, or an error of errno; or a new file, whose descriptor the
/// caller makes and returns.
struct Answer {
    std::int64_t value = 0; ///< below 0: -errno
    File opened = File::none;
};

/// Not thread-safe. `effects` outlives it; its destructor has no effects.
class VfioKernel {
  public:
    VfioKernel(std::vector<DeviceShape> devices, VfioLimits limits, Effects& effects);
    ~VfioKernel();

    // Return: the file, or -errno: EBUSY, ENOENT.
    [[nodiscard]] Answer open_container();
    [[nodiscard]] Answer open_group(unsigned number);
    [[nodiscard]] Answer open_iommufd();
    [[nodiscard]] Answer open_device(Device device); ///< /dev/vfio/devices/vfioN

    /// The last descriptor of `file` was closed.
    void close(File file);

    /// How many bytes of the argument `request` reads and writes at most, given the first 4 of them
    /// (argsz or size); 0 if the argument is a number. At most 16 KiB. The program may have fewer.
    [[nodiscard]] static std::size_t argument_bytes(unsigned long request,
                                                    std::span<const std::byte> first);

    /// `argument`: as many of these bytes as the program has, changed in place; fewer than the
    /// request needs are EFAULT. Linux writes only what changes, so should the caller. `number`:
    /// the argument itself, for requests that take a number.
    [[nodiscard]] Answer request(File file, unsigned long request, std::uint64_t number,
                                 std::span<std::byte> argument);

    /// The device of a device file through which regions may be used; nothing otherwise.
    [[nodiscard]] std::optional<Device> device_of(File file) const;

  private:
    class State;
    std::unique_ptr<State> state_;
};

} // namespace moat::run
