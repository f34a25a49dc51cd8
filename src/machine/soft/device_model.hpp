// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a model of a device is, and all that it sees of the world: its registers being accessed, and
// a bus to master. The models are beside this file; soft_machine.hpp puts them into a machine.
#pragma once

#include "moat/core/types.hpp"

#include "machine/machine.hpp"
#include "machine/pci.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::machine::soft {

/// A device's way to memory and to the CPU. An access may be refused on its way; what came before
/// the refused byte has happened.
class BusMaster {
  public:
    /// Return: how many bytes were transferred, all where nothing was refused.
    [[nodiscard]] virtual ByteCount read(Iova from, std::span<std::byte> into) = 0;
    [[nodiscard]] virtual ByteCount write(Iova to, std::span<const std::byte> from) = 0;

    /// Raises an interrupt; `vector` is below DeviceModel::vectors.
    virtual void interrupt(unsigned vector) = 0;

  protected:
    ~BusMaster() = default;
};

/// One function. What it is given is hostile: values of registers, and everything that it reads
/// from memory. Used by one thread.
class DeviceModel {
  public:
    virtual ~DeviceModel() = default;
    DeviceModel(const DeviceModel&) = delete;
    DeviceModel& operator=(const DeviceModel&) = delete;

    /// But for the address, which the machine gives.
    [[nodiscard]] virtual FunctionInfo info() const = 0;

    /// How many interrupts it can tell apart, at least one.
    [[nodiscard]] virtual unsigned vectors() const = 0;

    /// `offset` is a multiple of the width and inside of the BAR, which the function has.
    [[nodiscard]] virtual std::uint64_t read(unsigned bar, std::uint64_t offset, Width width) = 0;
    virtual void write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) = 0;

    /// Does a piece of what it was told to. Return: false where nothing was left to do.
    [[nodiscard]] virtual bool step(BusMaster& bus) = 0;

    virtual void reset() = 0;

  protected:
    DeviceModel() = default;
};

} // namespace moat::machine::soft
