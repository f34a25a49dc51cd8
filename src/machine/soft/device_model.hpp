// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The interface of a device model, and its view of the world: accesses to its registers, and a bus
// to master. soft_machine.hpp puts the models beside this file into a machine.
#pragma once

#include "moat/core/types.hpp"

#include "machine/machine.hpp"
#include "machine/pci.hpp"
#include "machine/soft/remark.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace moat::machine::soft {

/// A device's access to memory and to the CPU. An access may be refused midway; the bytes before
/// the refused one are transferred.
class BusMaster {
  public:
    /// Return: how many bytes were transferred; all unless refused.
    [[nodiscard]] virtual ByteCount read(Iova from, std::span<std::byte> into) = 0;
    [[nodiscard]] virtual ByteCount write(Iova to, std::span<const std::byte> from) = 0;

    /// For interrupts that only a pin signals: the driver assigned no vector.
    static constexpr unsigned no_vector = ~0U;

    /// Raises an interrupt; `vector` is below DeviceModel::vectors, or no_vector.
    virtual void interrupt(unsigned vector) = 0;

    /// The device's clock: monotonic, with an arbitrary start.
    [[nodiscard]] virtual std::chrono::nanoseconds now() {
        return std::chrono::steady_clock::now().time_since_epoch();
    }

  protected:
    ~BusMaster() = default;
};

/// A vendor-specific capability of configuration space, from its third byte on: its length.
using VendorCapability = std::vector<std::uint8_t>;

/// One function. Its input is hostile: register values, and everything that it reads from memory.
/// Used by one thread.
class DeviceModel {
  public:
    virtual ~DeviceModel() = default;
    DeviceModel(const DeviceModel&) = delete;
    DeviceModel& operator=(const DeviceModel&) = delete;

    /// Without the address, which the machine assigns.
    [[nodiscard]] virtual FunctionInfo info() const = 0;

    [[nodiscard]] virtual std::vector<VendorCapability> vendor_capabilities() const { return {}; }

    /// How many interrupt vectors it has, at least one.
    [[nodiscard]] virtual unsigned vectors() const = 0;

    /// `offset` is a multiple of the width and inside the BAR, which exists.
    [[nodiscard]] virtual std::uint64_t read(unsigned bar, std::uint64_t offset, Width width) = 0;
    virtual void write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) = 0;

    /// Performs a step of pending work, if it is due. Return: false if nothing is pending.
    [[nodiscard]] virtual bool step(BusMaster& bus) = 0;

    virtual void reset() = 0;

    // What a driver may rely on, whatever the device does wrong.
    /// Whether the driver has disabled the device, which then must not access memory.
    [[nodiscard]] virtual bool disabled() const { return false; }

    /// Whether a command that is not completed surely names memory of `range`, which is not empty.
    /// `bus` is only read.
    [[nodiscard]] virtual bool uses(IovaRange range, BusMaster& bus) const {
        static_cast<void>(range);
        static_cast<void>(bus);
        return false;
    }

    /// `sink` is called during write() and step().
    void report_to(RemarkSink sink) { remarks_ = std::move(sink); }

  protected:
    DeviceModel() = default;

    void remark(const Remark& remark) const {
        if (remarks_)
            remarks_(remark);
    }

  private:
    RemarkSink remarks_;
};

} // namespace moat::machine::soft
