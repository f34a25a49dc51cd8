// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The part of a virtio driver that is the same for every kind of device: modern registers over PCI,
// negotiation, and split queues with a request at a time.
// Source: Virtual I/O Device (VIRTIO) 1.1: 2.6 (split queues), 3.1 (start), 4.1 (PCI).
#pragma once

#include "audit/drivers/device.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace moat::audit::virtio {

/// A piece of a request: what the device reads comes before what it writes.
struct Part {
    Iova iova;
    std::uint64_t bytes = 0;
    bool device_writes = false;
};

/// How a driver uses its queues, as far as the device offers it.
enum class Style : std::uint8_t {
    plain,    ///< chains in the descriptor table; the device interrupts for each
    indirect, ///< chains in a table of their own (2.6.5.3), notifications by index (2.6.7)
};

/// A split queue, with memory of its own. At most one request is in it.
class Queue {
  public:
    static constexpr unsigned depth = 8;
    static constexpr std::size_t most_parts = 4; ///< of a request

    explicit Queue(std::uint16_t number) : number_(number) {}

    /// Whether the device used every request.
    [[nodiscard]] bool is_idle();

  private:
    friend class VirtioDriver;

    void restart();
    void post(std::span<const Part> parts);

    /// Whether the device asks to be notified of the last request.
    [[nodiscard]] bool wants_bell();

    const std::uint16_t number_;
    Buffer descriptors_{};
    Buffer available_{};
    Buffer used_{};
    Buffer table_{}; ///< of the style `indirect`
    std::uint64_t bell_ = 0;
    bool by_table_ = false;
    bool by_index_ = false;
    std::uint16_t posted_ = 0;
};

/// The base of a driver of a virtio device.
class VirtioDriver : public DeviceDriver {
  public:
    ~VirtioDriver() override;

  protected:
    VirtioDriver(std::string_view name, std::span<const Operation> operations, const Seat& seat,
                 Style style)
        : DeviceDriver(name, operations, seat), style_(style) {}

    /// Finds the registers; the device's own have at least `least` bytes. Errors: unsupported
    /// (no modern registers), io (they lie outside of their BAR).
    Result<void> find_registers(std::uint64_t least);

    /// Valid after find_registers.
    [[nodiscard]] machine::Registers& own_registers() { return *own_; }

    /// Obtains a queue's memory.
    Result<void> prepare(Queue& queue);

    /// Resets the device, negotiates, and enables the queues.
    Result<void> start_device(std::span<Queue* const> queues);

    /// Makes the request available and notifies the device.
    void post(Queue& queue, std::span<const Part> parts);

    /// Waits until `queue` is idle. Return: whether it is.
    Result<bool> wait_for(Queue& queue);

    /// The answer of a device that did not complete a request.
    [[nodiscard]] Answer no_answer();

  private:
    Result<std::unique_ptr<Window>> window_at(unsigned capability, std::uint64_t least);
    Result<void> negotiate();
    Result<void> enable(Queue& queue);
    void set_status(std::uint8_t status);

    const Style style_;
    std::unique_ptr<Window> common_;
    std::unique_ptr<Window> notify_;
    std::unique_ptr<Window> own_;
    std::uint32_t notify_step_ = 0;
    std::uint32_t accepted_ = 0; ///< the low word of the features
};

} // namespace moat::audit::virtio
