// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AttachedDevice: a function in a container, shared by the Device, its BARs and its model.
// The container's core owns it; soft_core.cpp and machine_core.cpp implement it.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"

#include "machine/machine.hpp"
#include "machine/pci.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace moat {
class DeviceModel;
} // namespace moat

namespace moat::api {

class Core;

/// Held by one thread at a time, which may take it again.
class Turn {
  public:
    /// Return: false while another thread has it.
    [[nodiscard]] bool take();

    /// Return: whether nobody has it any more.
    bool leave();

    [[nodiscard]] bool is_taken() const { return owner_.load(std::memory_order_acquire) != 0; }

  private:
    std::atomic<std::uintptr_t> owner_{0};
    unsigned depth_ = 0; ///< the owner's
};

/// How far an access of a device came.
struct Access {
    std::size_t done = 0;
    bool refused = false;
};

/// Stopped when it ends. One thread at a time, except what BARs call.
class AttachedDevice {
  public:
    explicit AttachedDevice(machine::Bdf address) : address_(address) {}

    virtual ~AttachedDevice() = default;
    AttachedDevice(const AttachedDevice&) = delete;
    AttachedDevice& operator=(const AttachedDevice&) = delete;

    [[nodiscard]] machine::Bdf address() const { return address_; }

    /// As if the device did so. Errors: unsupported (it is real).
    [[nodiscard]] virtual Result<Access> read(Iova from, std::span<std::byte> into) = 0;
    [[nodiscard]] virtual Result<Access> write(Iova to, std::span<const std::byte> from) = 0;

    /// Valid until `stop`. Errors: not_found, unsupported, io.
    [[nodiscard]] virtual Result<machine::Registers*> bar(unsigned index) = 0;
    [[nodiscard]] virtual Result<std::span<std::byte>> bar_memory(unsigned index) = 0;

    [[nodiscard]] virtual Result<unsigned> enable_interrupts(unsigned wanted) = 0;
    [[nodiscard]] virtual Result<bool> take_interrupt(unsigned vector) = 0;
    virtual Result<void> raise_interrupt(unsigned vector) = 0;

    /// From the return on it accesses nothing; it is still attached. May be called again.
    virtual void stop() = 0;

    /// Detaches it, once it is stopped.
    virtual void leave() = 0;

    /// The model ends.
    virtual void forget_model() {}

    /// Who is attached to it; null once it is detached or its container has ended.
    std::atomic<Core*> core{nullptr};
    /// Cleared before registers end.
    std::atomic<bool> live{true};
    /// Detach at the end of the access that is under way.
    std::atomic<bool> abandoned{false};
    Turn turn;

  private:
    const machine::Bdf address_;
};

} // namespace moat::api
