// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of xHCI host controllers up to the transfers of one device: rings, commands, contexts.
// usb_storage.cpp drives the device. It polls no register for an event: events lie in memory.
// Source: eXtensible Host Controller Interface for USB (xHCI) 1.2; sections are its own.
#pragma once

#include "audit/drivers/device.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace moat::audit::xhci {

/// A transfer request block (4.11.1), in memory layout.
struct Trb {
    std::uint64_t parameter = 0;
    std::uint32_t status = 0;
    std::uint32_t control = 0; ///< bits 15..10 its type, bit 0 the cycle
};

static_assert(sizeof(Trb) == 16);

/// A ring that the CPU fills (4.9). Its last TRB leads back to the first.
class Ring {
  public:
    void restart(const Buffer& memory);

    /// Return: where the controller finds the TRB.
    Iova append(Trb trb);

    /// Where the next TRB will lie, with its cycle in bit 0, as the controller takes it.
    [[nodiscard]] std::uint64_t position() const {
        return memory_.iova.value() + sizeof(Trb) * next_ + cycle_;
    }

  private:
    void put(Trb trb);

    Buffer memory_{};
    std::size_t next_ = 0;
    std::uint32_t cycle_ = 1;
};

/// The ring that the controller fills: one segment (4.9.4).
class EventRing {
  public:
    void restart(const Buffer& memory);

    /// The next new event.
    std::optional<Trb> take();

    [[nodiscard]] std::uint64_t position() const {
        return memory_.iova.value() + sizeof(Trb) * next_;
    }

  private:
    Buffer memory_{};
    std::size_t next_ = 0;
    std::uint32_t cycle_ = 1;
};

/// An endpoint by its index in contexts (4.8.1): 1 is the control endpoint, then 2n of OUT n and
/// 2n + 1 of IN n.
struct Endpoint {
    unsigned index = 0;
    std::uint32_t packet = 0; ///< bytes

    [[nodiscard]] bool is_in() const { return index % 2 == 1; }
};

/// A completion event, or its absence.
struct Outcome {
    bool answered = false;
    unsigned code = 0; ///< 6.4.5

    [[nodiscard]] bool is_good() const {
        constexpr unsigned success = 1;
        constexpr unsigned short_packet = 13;
        return answered && (code == success || code == short_packet);
    }
};

/// A request to the control endpoint, in memory layout (USB 3.2, 9.3).
struct Setup {
    std::uint8_t kind; ///< bit 7: the device sends data
    std::uint8_t request;
    std::uint16_t value;
    std::uint16_t index = 0;
    std::uint16_t length = 0;
};

static_assert(sizeof(Setup) == 8);

/// The longest data of one transfer.
inline constexpr ByteCount longest_data{std::uint64_t{1} << 20};

/// The base of a driver of the first device at a controller's root ports.
class XhciDriver : public DeviceDriver {
  public:
    ~XhciDriver() override {
        if (has_registers_)
            (void)halt();
    }

  protected:
    XhciDriver(std::string_view name, const Seat& seat, machine::Registers& registers)
        : DeviceDriver(name, {}, seat), registers_(registers) {}

    /// Finds the registers, and obtains the controller's memory.
    Result<void> prepare_controller();

    /// Resets and starts the controller; addresses the device at the first port that has one.
    /// Afterwards only the control endpoint can be used.
    Result<void> start_controller();

    /// Makes a bulk endpoint of each direction known to the controller.
    Result<void> configure(const Endpoint& in, const Endpoint& out);

    /// A control transfer; `data` is unused if the request has no length.
    Result<Outcome> request(const Setup& setup, Iova data = {});

    /// A bulk transfer.
    Result<Outcome> transfer(const Endpoint& endpoint, Iova data, ByteCount length);

    /// The same from a ring in `elsewhere`: stops the endpoint, moves it there, and after the
    /// transfer moves it back. From then on the controller must not access `elsewhere`.
    Result<Outcome> transfer_elsewhere(const Endpoint& endpoint, Iova data, ByteCount length,
                                       const Buffer& elsewhere);

    /// Disables the device's slot, and all its endpoints with it (4.6.4).
    Result<Outcome> disable_slot();

    /// The bytes that `elsewhere` needs.
    [[nodiscard]] static ByteCount ring_for(Iova data, ByteCount length);

    [[nodiscard]] std::uint32_t status();

  private:
    Result<void> find_registers();
    Result<void> halt();
    void set_up_memory();
    Result<void> reset_port();
    Result<void> address_device(unsigned port, unsigned speed);
    void describe_endpoint(const Endpoint& endpoint, unsigned kind, const Ring& ring);
    Result<void> require_command(Trb trb, const char* message);
    Result<Outcome> command(Trb trb);
    Result<void> move(const Endpoint& endpoint, std::uint64_t position);
    Result<Outcome> ring_and_wait(unsigned doorbell, std::uint32_t target);
    [[nodiscard]] Ring& ring_of(const Endpoint& endpoint);
    std::span<std::uint32_t> input_context(unsigned index);

    machine::Registers& registers_;
    bool has_registers_ = false;
    unsigned operational_ = 0; ///< offsets of register sets
    unsigned runtime_ = 0;
    unsigned doorbells_ = 0;
    unsigned ports_ = 0;
    unsigned context_words_ = 8;
    unsigned slot_ = 0;

    Buffer contexts_{}; ///< the device context base address array
    Buffer device_context_{};
    Buffer input_context_{};
    Buffer scratchpads_{};
    Buffer scratchpad_array_{};
    Buffer segment_table_{};
    Buffer event_memory_{};
    Buffer command_memory_{};
    std::array<Buffer, 3> ring_memory_{}; ///< control, in, out
    EventRing events_;
    Ring commands_;
    std::array<Ring, 3> rings_;
    std::vector<std::uint64_t> awaited_; ///< the TRBs whose event is awaited
    std::optional<Trb> event_;
};

} // namespace moat::audit::xhci
