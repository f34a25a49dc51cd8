// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The front door for C++: a container of device addresses, devices in it, and memory mapped for
// them with guards around it. Compiled: link moat::moat. docs/design/api.md gives the reasons;
// moat.h is the same for C. Templates for a domain of your own: moat/dma/space.hpp.
//
// Objects end in any order. One that outlives its container, its device or what it was moved to
// does nothing: its functions return `refused`. Memory of a Buffer stays until its last mapping
// ends. Any thread may call any function of a container and its mappings; an object ends, is moved
// or is detached while no other thread uses it. Functions that fail change nothing unless they say
// so. Every function may also return no_memory.
#pragma once

#include "moat/api/detail/mapper.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/dma/driver_error.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"
#include "moat/fault/diagnose.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::machine {
class Registers;
} // namespace moat::machine

/// What moat.hpp's classes point to; src/api defines it.
namespace moat::api {
class AttachedDevice;
enum class SyncFor : std::uint8_t;
} // namespace moat::api

namespace moat {

class Bar;
class Container;
class DeviceModel;

using dma::Direction;
using enum dma::Direction;
using dma::Level;
using dma::Placement;
using dma::Segment;
using dma::SegmentLimits;
using dma::Unmapping;
using FaultKind = fault::Kind;
using DriverErrorKind = dma::DriverErrorKind;

/// What bounds the devices.
enum class Backend : std::uint8_t {
    soft,    ///< an IOMMU in this process; the caller plays the devices, or attaches models
    vfio,    ///< Linux: iommufd if the kernel offers it, else type 1
    type1,   ///< Linux VFIO type 1
    iommufd, ///< Linux iommufd
    qemu,    ///< QEMU's models of devices, in a process of its own without a guest
};

/// Whether the variable MOAT_OPTIONS changes a configuration.
enum class Environment : std::uint8_t { read, ignore };

/// An access that the IOMMU refused, and the mapping it strayed from. Labels and stacks live as
/// long as the container.
class Fault {
  public:
    explicit Fault(const fault::Diagnosis& diagnosis, std::uint64_t page_bytes = 4096)
        : diagnosis_(diagnosis), page_bytes_(page_bytes) {}

    [[nodiscard]] FaultKind kind() const { return diagnosis_.kind; }

    /// The first byte that was refused, as far as the IOMMU reports it (fault::Precision).
    [[nodiscard]] std::uint64_t iova() const { return diagnosis_.record.where.start().value(); }

    [[nodiscard]] std::uint64_t bytes() const { return diagnosis_.record.where.size().value(); }

    /// Of the mapping that the access strayed from, or of the past one; may be empty.
    [[nodiscard]] std::string_view label() const;

    /// All that is known, the neighbours among it.
    [[nodiscard]] const fault::Diagnosis& diagnosis() const { return diagnosis_; }

    /// "dma-buffer-overflow: write by 00:01.0, 17 bytes past the end of "a"", without a line end.
    [[nodiscard]] std::string summary() const;

    /// The whole report, lines for a reader; what `<<` writes.
    [[nodiscard]] std::string text() const;

    /// One line without its end, schema moat.fault/1 (docs/report_schema.md).
    [[nodiscard]] std::string json() const;

  private:
    fault::Diagnosis diagnosis_;
    std::uint64_t page_bytes_;
};

std::ostream& operator<<(std::ostream& out, const Fault& fault);

/// A mistake of the driver: a second unmap, a leak, a write by the CPU into the device's buffer.
/// Views live as long as the call of the listener.
class DriverError {
  public:
    explicit DriverError(const dma::DriverError& error) : error_(error) {}

    [[nodiscard]] DriverErrorKind kind() const { return error_.kind; }

    [[nodiscard]] std::uint64_t iova() const { return error_.range.start().value(); }

    [[nodiscard]] std::uint64_t bytes() const { return error_.range.size().value(); }

    /// Of the mapping that it is about, or of the past one; may be empty.
    [[nodiscard]] std::string_view label() const;

    [[nodiscard]] const dma::DriverError& details() const { return error_; }

    [[nodiscard]] std::string summary() const;
    [[nodiscard]] std::string text() const;

    /// One line without its end, schema moat.driver_error/1 (docs/report_schema.md).
    [[nodiscard]] std::string json() const;

  private:
    dma::DriverError error_;
};

std::ostream& operator<<(std::ostream& out, const DriverError& error);

/// The machine of Backend::qemu. Its devices reach only memory that the container allocates; level
/// exact copies other memory where it is smaller than a page.
struct QemuConfig {
    /// Arguments of QEMU's -device: "edu,addr=4" is then attached as "00:04.0".
    std::vector<std::string> devices = {};
    /// Zeroed disks of whole sectors, which devices know as disk0, disk1:
    /// "nvme,drive=disk0,serial=a"
    std::vector<ByteCount> disks = {};
    /// QEMU's memory, which buffers come from: whole MiB, more than 16 MiB, up to 2 GiB.
    ByteCount ram{std::uint64_t{512} << 20};
    std::string program = "qemu-system-x86_64";
};

/// How a container is opened. `options`, then MOAT_OPTIONS, override the fields before them.
///
/// The container calls listeners on the thread that found the fault or mistake, within a function
/// of this header or within free(), with no lock held. A listener may map, unmap, attach, and
/// access memory through the device that strayed; it must not end its container. An exception that
/// it throws is printed to standard error. Without a listener, reports go to standard error.
struct ContainerConfig {
    Backend backend = Backend::soft;
    Level level = Level::track;
    /// Unmapped bytes after each mapping, rounded up to pages; 0: none.
    ByteCount guard{4096};
    ByteCount guard_before{};
    Placement placement = Placement::right;
    /// At level exact always strict.
    Unmapping unmapping = Unmapping::strict;
    /// How much unmapped address space stays out of use, so that a late access faults.
    ByteCount quarantine{};
    /// The last address that every device of the container can send.
    std::uint64_t dma_mask = ~std::uint64_t{0};
    /// How many past mappings to remember: 1 or more.
    std::uint32_t history = 1024;
    /// Records the call stack of one mapping in `stacks`; 0: none.
    std::uint32_t stacks = 0;
    /// Soft: pages of 4 KiB for tables, 1 to 2^20; each maps 2 MiB of small pages.
    std::uint32_t tables = 4096;
    QemuConfig qemu = {};
    /// "level=exact:guard=64k"; dma::options_help() lists the options.
    std::string_view options = {};
    Environment environment = Environment::read;
    std::function<void(const Fault&)> on_fault = {};
    std::function<void(const DriverError&)> on_driver_error = {};
};

/// What a container can do, options in effect.
struct ContainerLimits {
    Backend backend = Backend::soft; ///< the one in use: never Backend::vfio
    std::uint64_t page_bytes = 0;
    std::uint64_t first_iova = 0;
    std::uint64_t last_iova = 0;
    Level level = Level::track;
    Unmapping unmapping = Unmapping::strict;
    ByteCount guard = {};
    ByteCount guard_before = {};
};

struct PolledFaults {
    std::uint64_t reported = 0;
    std::uint64_t lost = 0; ///< faults whose record the kernel dropped
};

/// Memory to map: a Buffer, which converts to it, or bytes of the caller's that stay there until
/// they are unmapped.
class Memory {
  public:
    // Implicit, so that bytes are an argument where memory is expected.
    template <std::convertible_to<std::span<std::byte>> T>
    Memory(T&& bytes) // NOLINT(google-explicit-constructor,bugprone-forwarding-reference-overload)
        : bytes_(std::forward<T>(bytes)) {}

    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

    [[nodiscard]] api::Block* block() const { return block_; }

  private:
    friend class Buffer;

    Memory(std::span<std::byte> bytes, api::Block* block) : bytes_(bytes), block_(block) {}

    std::span<std::byte> bytes_;
    api::Block* block_ = nullptr;
};

/// Zeroed whole pages that nothing else shares. Move-only.
class Buffer {
  public:
    /// The requested bytes; the pages may have more.
    [[nodiscard]] std::span<std::byte> bytes() const { return memory_.bytes(); }

    [[nodiscard]] std::size_t size() const { return bytes().size(); }

    /// The same memory as an array of T, as many as fit.
    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] std::span<T> as() const {
        return {reinterpret_cast<T*>(bytes().data()), size() / sizeof(T)};
    }

    operator const Memory&() const { return memory_; } // NOLINT(google-explicit-constructor)

    Buffer(Buffer&& other) noexcept : memory_(std::exchange(other.memory_, {{}, nullptr})) {}

    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(memory_, other.memory_);
        return *this;
    }

    ~Buffer() { const api::BlockShare last(memory_.block_); }

    /// For src/api.
    Buffer(api::BlockShare share, std::span<std::byte> bytes) : memory_(bytes, share.release()) {}

  private:
    Memory memory_;
};

/// Memory that the container's devices reach, for as long as this object lives. Move-only.
class Mapping {
  public:
    Mapping(Mapping&& other) noexcept
        : link_(std::exchange(other.link_, {})), iova_(other.iova_), size_(other.size_),
          block_(std::exchange(other.block_, nullptr)), direction_(other.direction_) {}

    /// Unmaps what it had.
    Mapping& operator=(Mapping&& other) noexcept {
        Mapping taken(std::move(other));
        swap(taken);
        return *this;
    }

    /// Unmaps. If the invalidation fails, it reports `not_invalidated` and never frees the Buffer's
    /// memory; call `unmap` to get the error.
    ~Mapping() {
        if (api::Mapper* const mapper = link_.mapper()) [[likely]]
            mapper->end(iova_, size_, direction_, block_);
        else
            const api::BlockShare last(block_);
    }

    /// The address of its first byte for the device.
    [[nodiscard]] std::uint64_t iova() const { return iova_; }

    [[nodiscard]] std::size_t size() const { return size_; }

    [[nodiscard]] Direction direction() const { return direction_; }

    /// nullptr once it is unmapped or its container has ended. For src/api.
    [[nodiscard]] api::Core* core() const { return link_.core(); }

    /// Before the device reads what the CPU wrote. Errors: Container::sync_for_device's.
    Result<void> sync_for_device() { return sync_for_device(0, size_); }

    Result<void> sync_for_device(std::uint64_t offset, std::size_t bytes);

    /// Before the CPU reads what the device wrote. Errors: Container::sync_for_cpu's.
    Result<void> sync_for_cpu() { return sync_for_cpu(0, size_); }

    Result<void> sync_for_cpu(std::uint64_t offset, std::size_t bytes);

    /// Blocks the devices' access to bytes of it until `unpoison`: for sub-allocators.
    /// Errors: Container::poison's.
    Result<void> poison(std::uint64_t offset, std::size_t bytes);
    Result<void> unpoison(std::uint64_t offset, std::size_t bytes);

    /// Unmaps now. Errors: Container::unmap's, after which the mapping is released.
    Result<void> unmap();

    /// Leaves it mapped: Container::unmap undoes it, and a Buffer's memory stays for good.
    /// Return: iova().
    std::uint64_t release();

    /// For src/api.
    Mapping(api::Link link, Iova iova, ByteCount size, Direction direction, api::Block* shared)
        : link_(link), iova_(iova.value()), size_(size.value()), block_(shared),
          direction_(direction) {}

  private:
    void swap(Mapping& other) noexcept {
        std::swap(link_, other.link_);
        std::swap(iova_, other.iova_);
        std::swap(size_, other.size_);
        std::swap(block_, other.block_);
        std::swap(direction_, other.direction_);
    }

    api::Link link_;
    std::uint64_t iova_ = 0;
    std::size_t size_ = 0;
    api::Block* block_ = nullptr; ///< which it has a share of
    Direction direction_ = bidirectional;
};

/// Pieces of memory in one range of addresses, for as long as this object lives. Move-only.
class ListMapping {
  public:
    ListMapping(ListMapping&&) noexcept = default;

    /// Unmaps what it had.
    ListMapping& operator=(ListMapping&& other) noexcept {
        std::swap(shares_, other.shares_);
        std::swap(range_, other.range_);
        std::swap(segments_, other.segments_);
        std::swap(each_, other.each_);
        return *this;
    }

    /// As Mapping's.
    ~ListMapping() { (void)unmap(); }

    /// The segments for the device, in order.
    [[nodiscard]] std::span<const Segment> segments() const { return segments_; }

    /// Of the whole range.
    [[nodiscard]] std::uint64_t iova() const { return range_.iova(); }

    [[nodiscard]] std::size_t size() const { return range_.size(); }

    /// All segments. Errors: Container's.
    Result<void> sync_for_device();
    Result<void> sync_for_cpu();

    /// As Mapping::unmap.
    Result<void> unmap();

    /// As Mapping::release; size() and direction() are what Container::unmap takes.
    std::uint64_t release();

    [[nodiscard]] Direction direction() const { return range_.direction(); }

    /// For src/api.
    ListMapping(Mapping range, std::vector<Segment> segments, std::vector<api::BlockShare> shares,
                bool each)
        : shares_(std::move(shares)), range_(std::move(range)), segments_(std::move(segments)),
          each_(each) {}

  private:
    Result<void> sync(api::SyncFor whom);

    std::vector<api::BlockShare> shares_;
    Mapping range_;
    std::vector<Segment> segments_;
    bool each_; ///< segments have guards between them, and are mappings of their own
};

/// Memory that driver and device share for long, mapped bidirectionally at a multiple of its size
/// (rounded up to a power of two). Move-only.
class CoherentBuffer {
  public:
    [[nodiscard]] std::span<std::byte> bytes() const { return buffer_.bytes(); }

    [[nodiscard]] std::size_t size() const { return buffer_.size(); }

    template <class T>
    [[nodiscard]] std::span<T> as() const {
        return buffer_.as<T>();
    }

    [[nodiscard]] std::uint64_t iova() const { return mapping_.iova(); }

    [[nodiscard]] Mapping& mapping() { return mapping_; }

    /// For src/api.
    CoherentBuffer(Buffer buffer, Mapping mapping)
        : buffer_(std::move(buffer)), mapping_(std::move(mapping)) {}

  private:
    Buffer buffer_;
    Mapping mapping_;
};

/// Registers of a device. Copies name the same registers.
/// Errors of every access: unaligned (`offset` is no multiple of the width), out_of_range, refused
/// (the device is detached).
class Bar {
  public:
    [[nodiscard]] Result<std::uint8_t> read8(std::uint64_t offset) const;
    [[nodiscard]] Result<std::uint16_t> read16(std::uint64_t offset) const;
    [[nodiscard]] Result<std::uint32_t> read32(std::uint64_t offset) const;
    [[nodiscard]] Result<std::uint64_t> read64(std::uint64_t offset) const;

    Result<void> write8(std::uint64_t offset, std::uint8_t value) const;
    Result<void> write16(std::uint64_t offset, std::uint16_t value) const;
    Result<void> write32(std::uint64_t offset, std::uint32_t value) const;
    Result<void> write64(std::uint64_t offset, std::uint64_t value) const;

    [[nodiscard]] std::uint64_t size() const;

    /// The registers, mapped in this process until the device is detached.
    /// Errors: unsupported (they are not memory), refused.
    [[nodiscard]] Result<std::span<std::byte>> memory() const;

    /// For src/api.
    Bar(std::shared_ptr<api::AttachedDevice> device, unsigned index, machine::Registers& registers)
        : device_(std::move(device)), registers_(&registers), index_(index) {}

  private:
    std::shared_ptr<api::AttachedDevice> device_;
    machine::Registers* registers_;
    unsigned index_;
};

/// A PCI function that reaches what its container maps, for as long as this object lives.
/// Move-only. One thread at a time uses it, except its BARs.
class Device {
  public:
    Device(Device&&) noexcept = default;
    Device& operator=(Device&& other) noexcept;

    /// Detaches the device: it accesses nothing any more, and VFIO resets it. In the middle of an
    /// access it is detached when the access ends.
    ~Device();

    /// Memory BAR `index`. Errors: not_found, unsupported (ports; a soft device without a model),
    /// io, refused.
    [[nodiscard]] Result<Bar> bar(unsigned index);

    /// Soft: the device reads from, or writes to, [iova, iova + size). Bytes before the first that
    /// the IOMMU refuses are transferred.
    /// Errors: refused (the listener has the fault; the value `done` counts the bytes before it),
    /// busy (another thread uses it), empty, unsupported (another backend).
    Result<void> read(std::uint64_t iova, std::span<std::byte> into);
    Result<void> write(std::uint64_t iova, std::span<const std::byte> from);

    /// Enables up to `wanted` interrupt vectors, MSI-X or MSI. Return: how many, at least one.
    /// Errors: empty, unsupported (the device has none), limit, io, refused.
    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted);

    /// Whether `vector` was raised since the last call that returned true; does not wait.
    /// Errors: out_of_range (it is not enabled), refused.
    [[nodiscard]] Result<bool> take_interrupt(unsigned vector);

    /// The same, waiting up to `longest_ms`.
    [[nodiscard]] Result<bool> wait_for_interrupt(unsigned vector, std::uint32_t longest_ms);

    /// Soft: the device raises an interrupt. Errors: out_of_range (it is not enabled), unsupported
    /// (another backend), refused.
    Result<void> raise_interrupt(unsigned vector);

    /// As the destructor, with a result. Errors: busy (it is in the middle of an access; VFIO: it
    /// is the last device, and something is mapped); it stays attached.
    Result<void> detach();

    /// For src/api.
    explicit Device(std::shared_ptr<api::AttachedDevice> device) : device_(std::move(device)) {}

  private:
    std::shared_ptr<api::AttachedDevice> device_;
};

/// The model of a device for Backend::soft. Bar's functions access its registers, on the thread of
/// their caller. One model is one device. It may end before the device, which then reads as all
/// ones.
class DeviceModel {
  public:
    DeviceModel() = default;
    virtual ~DeviceModel();
    DeviceModel(const DeviceModel&) = delete;
    DeviceModel& operator=(const DeviceModel&) = delete;

    /// The size of BAR `index`, 0 to 5; 0: the device does not have it.
    [[nodiscard]] virtual std::uint64_t bar_bytes(unsigned index) const {
        return index == 0 ? 4096 : 0;
    }

    /// Whole pages behind BAR `index` that devices reach peer to peer; empty: none.
    [[nodiscard]] virtual std::span<std::byte> bar_memory(unsigned /*index*/) { return {}; }

    /// How many interrupt vectors it has.
    [[nodiscard]] virtual unsigned vectors() const { return 1; }

    /// `offset` is a multiple of `width`, which is 1, 2, 4 or 8 bytes, and inside the BAR.
    [[nodiscard]] virtual std::uint64_t read(unsigned bar, std::uint64_t offset,
                                             unsigned width) = 0;
    virtual void write(unsigned bar, std::uint64_t offset, unsigned width, std::uint64_t value) = 0;

  protected:
    /// The device accesses memory, or raises an interrupt. Errors: Device's; refused (the model is
    /// not attached).
    Result<void> read_memory(std::uint64_t iova, std::span<std::byte> into);
    Result<void> write_memory(std::uint64_t iova, std::span<const std::byte> from);
    Result<void> interrupt(unsigned vector);

  private:
    friend class api::Core;

    std::weak_ptr<api::AttachedDevice> device_;
};

/// Device addresses, and what is mapped at them. Move-only.
class Container {
  public:
    /// An empty container. VFIO needs rights to /dev/vfio and /dev/kmsg. QEMU is started, and ends
    /// with the container and its last Buffer, or with the thread that called.
    /// Errors: unsupported (an option or a number that does not exist; the backend cannot),
    /// out_of_range (the mask leaves no address; a wrong size of QEMU's memory), no_memory; VFIO
    /// also: not_found, refused; QEMU also: not_found (it is not installed), io (it did not start:
    /// the error has its reason).
    [[nodiscard]] static Result<Container> open(const ContainerConfig& config = {});

    Container(Container&&) noexcept;
    Container& operator=(Container&&) noexcept;

    /// Stops its devices, reports what is still mapped as leaks (from level track on), and unmaps
    /// it. Its own listener must not end it.
    ~Container();

    /// Attaches the PCI function at `address` ("0000:03:00.0" or "03:00.0"): it reaches what is
    /// mapped and nothing else. VFIO: the function is bound to vfio-pci. VFIO and QEMU: it may
    /// master the bus from now on.
    /// Errors: not_found (no such function, or no address), busy (attached already), mismatch
    /// (VFIO: it cannot share the container's limits), refused, unsupported, io.
    [[nodiscard]] Result<Device> attach(std::string_view address);

    /// Soft: attaches `model` as the device at `address`. Errors: as above; busy (the model is
    /// attached), unsupported (another backend).
    [[nodiscard]] Result<Device> attach(std::string_view address, DeviceModel& model);

    /// QEMU: memory of the machine, which stays until the Buffer ends. Errors: empty, no_memory.
    [[nodiscard]] Result<Buffer> allocate(std::size_t bytes);

    /// Allocates memory and maps it. Errors: allocate's and map's.
    [[nodiscard]] Result<CoherentBuffer> allocate_coherent(std::size_t bytes,
                                                           std::string_view label = {});

    /// Maps `memory` for the devices, with guards around it. Whole pages become reachable; at level
    /// exact its bytes alone. The label is copied.
    /// Errors: empty, overflow, out_of_range (the memory is null, not addressable, or not QEMU's),
    /// no_space, no_memory, limit, unsupported (no such direction), refused (VFIO: no device is
    /// attached yet), io.
    [[nodiscard]] Result<Mapping> map(const Memory& memory, Direction direction,
                                      std::string_view label = {}) {
        api::Mapper* const core = core_.get();
        if (core == nullptr) [[unlikely]]
            return api::no_container();
        MOAT_LET(const Iova iova, core->map(memory, direction, label));
        return Result<Mapping>(std::in_place, core->link(), iova, ByteCount(memory.bytes().size()),
                               direction, memory.block());
    }

    /// Maps `pieces` into one range, each on pages of its own. Whole pages become reachable.
    /// Errors: map's; out_of_range (a piece is longer than a segment may be), unsupported (a
    /// boundary that is no power of two).
    [[nodiscard]] Result<ListMapping> map_list(std::span<const Memory> pieces, Direction direction,
                                               const SegmentLimits& limits = {},
                                               std::string_view label = {});

    /// Peer to peer: maps whole pages of another device's BAR. They stay mapped after that device
    /// is detached only as long as `Device::detach` says.
    /// Errors: map's; out_of_range, unaligned, unsupported (the backend cannot, or the BAR is not
    /// memory), refused.
    [[nodiscard]] Result<Mapping> map_region(const Bar& bar, std::uint64_t offset,
                                             std::uint64_t bytes, Direction direction,
                                             std::string_view label = {});

    /// Unmaps a mapping that was released. Strict: on return no device reaches the memory.
    /// Deferred: after `flush`. Errors: empty, overflow; not_found, mismatch (reported from level
    /// track on); io: devices may still reach the memory.
    Result<void> unmap(std::uint64_t iova, std::size_t bytes, Direction direction);

    /// Gives [iova + offset, + bytes) of the mapping at `iova` to the device, or to the CPU.
    /// Errors: empty, overflow; not_found, out_of_range (reported from level track on).
    Result<void> sync_for_device(std::uint64_t iova, std::uint64_t offset, std::size_t bytes);
    Result<void> sync_for_cpu(std::uint64_t iova, std::uint64_t offset, std::size_t bytes);

    /// Blocks the devices' access to bytes of one mapping until `unpoison` or unmap; or allows it.
    /// Errors: empty, overflow, not_found, unsupported (below level exact; VFIO, QEMU), io.
    Result<void> poison(std::uint64_t iova, std::size_t bytes);
    Result<void> unpoison(std::uint64_t iova, std::size_t bytes);

    /// On return no device reaches what was unmapped before the call. Errors: io.
    Result<void> flush();

    /// Reports the faults since the last call: VFIO, those that the kernel has logged; QEMU, those
    /// of its IOMMU. A soft container reports faults as they happen. Errors: io.
    Result<PolledFaults> poll_faults();

    /// Reports each live mapping as a leak, and leaves it mapped.
    Result<void> report_living();

    /// Errors: refused (VFIO: no device is attached yet).
    [[nodiscard]] Result<ContainerLimits> limits();

    /// As the destructor, with a result. Errors: busy (its own listener calls).
    Result<void> close();

    /// For src/api.
    explicit Container(std::unique_ptr<api::Core> core);

  private:
    [[nodiscard]] Result<Device> attach_as(std::string_view address, DeviceModel* model);
    void end() noexcept;

    [[nodiscard]] api::Core& core();

    std::unique_ptr<api::Mapper> core_;
};

} // namespace moat
