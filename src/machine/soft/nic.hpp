// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A model of a network card with its cable plugged into itself: what is transmitted is received.
// It is a virtio network device over modern PCI. Misbehaviour: data_phase.hpp.
// Source: Virtual I/O Device (VIRTIO) 1.1: 2.1 to 2.4, 2.6 (split queues), 4.1 (PCI), 5.1
// (network).
#pragma once

#include "machine/soft/virtio_queue.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace moat::machine::soft {

/// One pair of queues, and no filter: every frame that fits into a receive buffer is received.
class Nic final : public MovingModel {
  public:
    static constexpr unsigned receive_queue = 0;
    static constexpr unsigned transmit_queue = 1;
    static constexpr unsigned queue_count = 2;
    static constexpr std::uint64_t header_bytes = 12; ///< before each frame in memory
    static constexpr std::uint64_t most_frame = 16 << 10;

    using MacAddress = std::array<std::uint8_t, 6>;

    explicit Nic(const MacAddress& mac = {0x02, 0, 0, 0, 0, 1}) : mac_(mac) {}

    [[nodiscard]] FunctionInfo info() const override;
    [[nodiscard]] std::vector<VendorCapability> vendor_capabilities() const override;

    /// One a queue, and one for changes of the configuration.
    [[nodiscard]] unsigned vectors() const override { return queue_count + 1; }

    [[nodiscard]] std::uint64_t read(unsigned bar, std::uint64_t offset, Width width) override;
    void write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) override;
    [[nodiscard]] bool step(BusMaster& bus) override;
    void reset() override;
    [[nodiscard]] bool disabled() const override;
    [[nodiscard]] bool uses(IovaRange range, BusMaster& bus) const override;

    /// How many frames were received, and how many were lost for lack of a buffer, since
    /// construction.
    [[nodiscard]] std::uint64_t received() const { return received_; }

    [[nodiscard]] std::uint64_t dropped() const { return dropped_; }

  private:
    /// What the driver sets of a queue, and the queue once it is enabled.
    struct QueueRegisters {
        VirtioQueue::Place place = {};
        unsigned vector = BusMaster::no_vector;
        std::optional<VirtioQueue> queue;
    };

    // Registers: nic.cpp.
    [[nodiscard]] std::array<std::byte, 56> common() const;
    void write_common(std::uint64_t offset, Width width, std::uint64_t value);
    void write_queue(QueueRegisters& queue, std::uint64_t offset, Width width, std::uint64_t value);
    void set_status(std::uint8_t status);
    /// To the state after a reset, but for what the device may still do wrong.
    void stop();
    [[nodiscard]] bool features_are_acceptable() const;
    void notify(std::uint64_t queue, std::uint64_t value);
    [[nodiscard]] unsigned vector_for(std::uint64_t value) const;

    [[nodiscard]] bool is_running() const;

    // Frames: nic_frames.cpp.
    /// Moves frames. Return: whether there are any.
    [[nodiscard]] bool forward(BusMaster& bus);
    void want_notifications(BusMaster& bus, unsigned queue, bool want);
    /// Takes a buffer; a queue that is wrong breaks the device. Return: whether there was one.
    [[nodiscard]] bool take(BusMaster& bus, unsigned queue);
    /// Reads the frame of `chain_` into `frame_`. Return: whether there is one to receive.
    [[nodiscard]] bool transmit(BusMaster& bus);
    void receive(BusMaster& bus);
    void publish(BusMaster& bus, unsigned queue);
    void raise(BusMaster& bus, unsigned vector, std::uint8_t cause);
    /// Stops until the driver resets the device.
    void need_reset(BusMaster& bus);

    const MacAddress mac_;
    // Members so that their memory is reused.
    VirtioQueue::Chain chain_;
    std::vector<std::byte> frame_;

    std::uint32_t device_feature_select_ = 0;
    std::uint32_t driver_feature_select_ = 0;
    std::array<std::uint32_t, 2> driver_features_{};
    unsigned config_vector_ = BusMaster::no_vector;
    std::uint8_t status_ = 0;
    std::uint8_t causes_ = 0; ///< of interrupts, until they are read
    std::uint16_t selected_ = 0;
    std::array<QueueRegisters, queue_count> queues_{};
    bool notified_ = false; ///< of frames to transmit

    std::uint64_t received_ = 0;
    std::uint64_t dropped_ = 0;
};

} // namespace moat::machine::soft
