// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The interface of a device's driver to the audit: its operations, the memory that each needs, and
// the device's answer. Drivers use the memory that they get and believe the device; the arena
// places memory, and the judge decides what was touched. One source file each in
// src/audit/drivers/; probe.cpp recognises their devices.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/dma/memory.hpp"

#include "machine/machine.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace moat::audit {

using dma::Direction;

/// Memory as the CPU and as the device see it. The CPU sees the bytes that the driver may use; an
/// injected error may give the device another length.
struct Buffer {
    Iova iova;
    std::span<std::byte> bytes;
};

/// How long a driver uses a buffer.
enum class Use : std::uint8_t { always, at_start };

/// Memory that an operation needs, or a driver for its lifetime.
struct Need {
    std::string_view what; ///< "data", "PRP list", "submission queue"; static
    Direction direction = Direction::bidirectional;
    ByteCount size = {};
    unsigned alignment_lg2 = 0;
    Use use = Use::always; ///< at_start: unknown to the device after `probe`
};

/// Allocates memory for a driver's lifetime, such as queues.
class BufferSource {
  public:
    /// Allocates zeroed memory and maps it for the device. Errors: no_memory, no_space.
    [[nodiscard]] virtual Result<Buffer> obtain(const Need& need) = 0;

  protected:
    ~BufferSource() = default;
};

/// What an operation does with the device's medium.
enum class Content : std::uint8_t {
    none,   ///< nothing, or nothing that another operation returns
    stores, ///< the medium gets the data
    loads,  ///< the data gets what the medium has
};

/// What an operation stores and another loads: the storage behind a device, or the driver's own.
struct Medium {
    ByteCount size = {};
    ByteCount unit{1};   ///< of positions, and of the granules that `stores` and `loads` access
    bool is_kept = true; ///< while drivers end and start
};

/// An operation of a device on data of any length within bounds.
struct Operation {
    std::string_view name; ///< "read", "identify"; static
    Direction direction = Direction::from_device;
    unsigned alignment_lg2 = 0; ///< of the data's IOVA
    ByteCount granule{1};       ///< lengths are multiples of it
    ByteCount longest = {};
    ByteCount shortest = {};
    /// The most bytes that the device writes of longer data; the rest is undefined.
    ByteCount fills{~std::uint64_t{0}};
    Content content = Content::none; ///< at Request::position; others ignore the position

    [[nodiscard]] bool has_length(ByteCount length) const {
        return length >= shortest && length <= longest &&
               length.value() % std::max<std::uint64_t>(granule.value(), 1) == 0 &&
               (length == ByteCount(0)) == (longest == ByteCount(0));
    }
};

/// An operation on the medium; `content` gives its direction.
[[nodiscard]] constexpr Operation on_medium(std::string_view name, Content content,
                                            ByteCount granule, ByteCount longest,
                                            unsigned alignment_lg2 = 0) {
    return {.name = name,
            .direction = content == Content::loads ? Direction::from_device : Direction::to_device,
            .alignment_lg2 = alignment_lg2,
            .granule = granule,
            .longest = longest,
            .content = content};
}

/// A request to the device. The data's memory may be shorter than `length`, which the device gets.
struct Request {
    unsigned operation = 0; ///< an index in Driver::operations
    Iova data;
    ByteCount length;
    std::uint64_t position = 0; ///< on the medium, in its unit
    /// Memory for Driver::lists_for, in its order.
    std::span<const Buffer> lists = {};
};

/// The device's claim, which may be false.
enum class Verdict : std::uint8_t { success, failure, no_answer };

struct Answer {
    Verdict verdict = Verdict::no_answer;
    std::uint64_t code = 0; ///< specific to the device
};

/// One device, started and idle between calls. Used by one thread. Its function and buffers outlive
/// it; the device accesses no memory after its end.
class Driver {
  public:
    virtual ~Driver() = default;
    Driver(const Driver&) = delete;
    Driver& operator=(const Driver&) = delete;

    [[nodiscard]] std::string_view name() const { return name_; }

    [[nodiscard]] std::span<const Operation> operations() const { return operations_; }

    /// Of size 0 if no operation stores or loads.
    [[nodiscard]] const Medium& medium() const { return medium_; }

    /// Lists (of pages, of segments) that `request` needs beside its data. The data's address
    /// decides.
    [[nodiscard]] virtual std::vector<Need> lists_for(const Request&) const { return {}; }

    /// Errors: io (the machine failed), out_of_range (the operation has no such length, or the
    /// driver cannot express the request). A refusal by the device is an Answer.
    [[nodiscard]] Result<Answer> run(const Request& request);

    /// Deletes the queues of the operations, as a driver does before it frees their data; the next
    /// operation starts the device again. Return: false if the device has no such command, rejects
    /// it, or did not answer before. Errors: io.
    [[nodiscard]] virtual Result<bool> delete_queues() { return false; }

  protected:
    /// `name` is static; `operations` lives as long as the driver.
    explicit Driver(std::string_view name, std::span<const Operation> operations = {},
                    const Medium& medium = {})
        : name_(name), operations_(operations), medium_(medium) {}

    void set_operations(std::span<const Operation> operations) { operations_ = operations; }

    void set_medium(const Medium& medium) { medium_ = medium; }

  private:
    /// Of an operation that exists, with a length that it has.
    [[nodiscard]] virtual Result<Answer> do_run(const Request& request) = 0;

    const std::string_view name_;
    std::span<const Operation> operations_;
    Medium medium_;
};

/// What a driver drives, and with what memory.
struct Seat {
    machine::Machine& machine;
    machine::Function& function;
    BufferSource& buffers;
    std::function<void()> before_wait = {}; ///< called before each wait for the device, if set
};

/// Starts a driver for an attached function. Errors: unsupported (another kind of device), io, and
/// those of the buffers.
using Start = Result<std::unique_ptr<Driver>>(const Seat& seat);

Start start_edu;         ///< QEMU's teaching device: a DMA engine with a buffer of 4096 bytes
Start start_nvme;        ///< any NVM Express controller, with one I/O queue
Start start_virtio_blk;  ///< a virtio block device over modern PCI
Start start_virtio_scsi; ///< the disk at target 0 of a virtio SCSI controller
Start start_pvscsi;      ///< the disk at target 0 of VMware's paravirtual SCSI controller
Start start_virtio_net;  ///< a virtio network device whose network returns each frame
Start start_ahci;        ///< the first disk of an AHCI controller
Start start_e1000;       ///< an Intel 82540EM network controller, looped back
Start start_e1000e;      ///< an Intel 82574 network controller, looped back
Start start_vmxnet3;     ///< VMware's vmxnet3, whose network returns each frame
Start start_xhci;        ///< the first disk at a USB 3 controller
Start start_hda;         ///< the first codec of an Intel HD Audio controller
Start start_sdhci;       ///< the card in the first slot of an SD host controller

/// Starts the first driver that supports the function. Errors: unsupported (none does), and those
/// of that driver.
[[nodiscard]] Start probe;

/// The name of the driver that probe() starts for such a function; empty if none supports it.
[[nodiscard]] std::string_view driver_of(const machine::FunctionInfo& info);

} // namespace moat::audit
