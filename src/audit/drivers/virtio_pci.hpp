// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The part of a virtio driver that is the same for every kind of device: modern registers over PCI,
// and negotiation. virtio_queue.hpp has the queues.
// Source: Virtual I/O Device (VIRTIO) 1.2: 3.1 (start), 4.1 (PCI), 6 (features).
#pragma once

#include "audit/drivers/device.hpp"
#include "audit/drivers/virtio_queue.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace moat::audit::virtio {

/// How a driver uses its queues, as far as the device offers it.
enum class Style : std::uint8_t {
    plain,    ///< chains in the queue; the device interrupts for each
    indirect, ///< chains in a table of their own; notifications of the entries asked for
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

    /// Creates a queue, with memory of its own: packed if the device offers it. Call after
    /// find_registers. Return: the queue, which lives as long as the driver.
    Result<Queue*> create_queue(std::uint16_t number);

    /// Resets the device, negotiates, and enables the queues. Interrupts are off, or enabled with a
    /// vector for each queue.
    Result<void> start_device();

    /// Makes the request available and notifies the device.
    void post(Queue& queue, std::span<const Part> parts);

    /// Waits until `queue` is idle: see wait_for_completion. Return: whether it is.
    Result<bool> wait_for(Queue& queue, std::chrono::nanoseconds longest = std::chrono::seconds(2));

    /// The answer of a device that did not complete a request.
    [[nodiscard]] Answer no_answer();

  private:
    Result<std::unique_ptr<Window>> window_at(unsigned capability, std::uint64_t least);
    void choose_features();
    Result<void> negotiate();
    Result<void> enable(Queue& queue);
    void set_status(std::uint8_t status);

    const Style style_;
    std::unique_ptr<Window> common_;
    std::unique_ptr<Window> notify_;
    std::unique_ptr<Window> own_;
    std::uint32_t notify_step_ = 0;
    std::uint64_t accepted_ = 0; ///< features
    std::vector<std::unique_ptr<Queue>> queues_;
};

} // namespace moat::audit::virtio
