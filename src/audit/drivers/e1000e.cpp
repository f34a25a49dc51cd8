// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of Intel 82574 network controllers, looped back at the MAC: each operation sends one
// frame and receives it.
// Source: Intel 82574 GbE Controller Family datasheet, 7.1 (receive), 7.2 (transmit), 10
// (registers).
#include "audit/driver.hpp"
#include "audit/drivers/device.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <span>

namespace moat::audit {
namespace e1000e {

using namespace std::chrono_literals;

namespace reg {

constexpr unsigned control = 0x0000;
constexpr unsigned interrupt_mask_clear = 0x00d8;
constexpr unsigned receive_control = 0x0100;
constexpr unsigned transmit_control = 0x0400;
constexpr unsigned receive_ring = 0x2800;
constexpr unsigned transmit_ring = 0x3800;
// Of a ring:
constexpr unsigned base = 0x00;
constexpr unsigned bytes = 0x08;
constexpr unsigned head = 0x10;
constexpr unsigned tail = 0x18;

} // namespace reg

constexpr std::uint32_t reset = 1U << 26;
constexpr std::uint32_t link_up = 1U << 6;
constexpr std::uint32_t enable = 1U << 1;
constexpr std::uint32_t pad_short = 1U << 3;
constexpr std::uint32_t everything = 1U << 15 | 3U << 3; ///< broadcast, multicast, unicast
constexpr std::uint32_t mac_loopback = 1U << 6;
constexpr std::uint32_t strip_checksum = 1U << 26;

constexpr unsigned depth = 8; ///< the shortest ring
constexpr ByteCount shortest(60);
constexpr ByteCount longest(1514);
constexpr ByteCount header_bytes(14);
constexpr ByteCount longest_payload = longest - header_bytes;
constexpr std::size_t frame_room = 2048; ///< of a receive buffer, as the controller is configured

/// Both kinds: an address, a length, and a status.
struct Descriptor {
    std::uint64_t address = 0;
    std::uint16_t length = 0;
    std::uint8_t offset = 0;
    std::uint8_t command = 0;
    std::uint32_t status = 0; ///< bit 0: done
};

static_assert(sizeof(Descriptor) == 16);
constexpr std::uint8_t end_of_frame = 1U << 0 | 1U << 1 | 1U << 3; ///< sends it, and reports that

enum Place : std::uint8_t { receive_place, transmit_place };

constexpr std::array<Operation, 2> operations_of_e1000e = {
    {{"receive", Direction::from_device, 0, ByteCount(1), longest, shortest},
     {"transmit", Direction::to_device, 0, ByteCount(1), longest_payload, shortest}}};

class E1000e final : public DeviceDriver {
  public:
    E1000e(const Seat& seat, machine::Registers& registers)
        : DeviceDriver("e1000e", operations_of_e1000e, seat), registers_(registers) {}

    ~E1000e() override {
        if (has_registers())
            stop();
    }

    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare();

  private:
    [[nodiscard]] bool has_registers() const { return registers_.size() >= ByteCount(0x4000); }

    void stop() {
        registers_.write32(reg::receive_control, 0);
        registers_.write32(reg::transmit_control, 0);
    }

    void set_ring(unsigned at, const Buffer& ring, std::span<const Descriptor> first);

    /// Whether a descriptor's status is done; acquires what the device wrote before it.
    static bool is_done(const Buffer& ring, std::size_t place) {
        auto& word = reinterpret_cast<std::uint32_t*>(ring.bytes.data())[4 * place + 3];
        return (std::atomic_ref<std::uint32_t>(word).load(std::memory_order_acquire) & 1) != 0;
    }

    machine::Registers& registers_;
    Buffer receive_ring_{};
    Buffer transmit_ring_{};
    Buffer received_{}; ///< the destination of the frame that `transmit` sends
    Buffer sent_{};     ///< the frame that `receive` gets, and the header of `transmit`'s
};

Result<void> E1000e::prepare() {
    if (!has_registers())
        return fail(ErrorCode::io, "a controller with too few registers");
    using enum Direction;
    const ByteCount ring(depth * sizeof(Descriptor));
    MOAT_TRY(obtain({{receive_ring_, {"receive ring", bidirectional, ring, 7}},
                     {transmit_ring_, {"transmit ring", bidirectional, ring, 7}},
                     {received_, {"received frame", from_device, ByteCount(frame_room), 0}},
                     {sent_, {"sent frame", to_device, longest, 0}}}));
    // A broadcast frame of an experimental type (IEEE 802, 0x88b5).
    for (std::size_t i = 0; i != sent_.bytes.size(); ++i)
        sent_.bytes[i] = static_cast<std::byte>(i < 6 ? 0xff : i);
    sent_.bytes[12] = std::byte{0x88};
    sent_.bytes[13] = std::byte{0xb5};
    registers_.write32(reg::control, reset);
    auto is_reset = [&] { return (registers_.read32(reg::control) & reset) == 0; };
    MOAT_TRY(require(is_reset, 1s, "the controller does not reset"));
    registers_.write32(reg::interrupt_mask_clear, ~0U);
    registers_.write32(reg::control, link_up);
    function().set_bus_master(true);
    return health();
}

/// Sets up a ring; writing the tail starts it.
void E1000e::set_ring(unsigned at, const Buffer& ring, std::span<const Descriptor> first) {
    std::memset(ring.bytes.data(), 0, ring.bytes.size());
    std::memcpy(ring.bytes.data(), first.data(), first.size_bytes());
    registers_.write_halves(at + reg::base, ring.iova.value());
    registers_.write32(at + reg::bytes, depth * sizeof(Descriptor));
    registers_.write32(at + reg::head, 0);
    registers_.write32(at + reg::tail, 0);
}

/// What `transmit` sends lies behind a header, because the controller drops frames whose data it
/// takes for a protocol's header with an error.
Result<Answer> E1000e::do_run(const Request& request) {
    const bool receives = request.operation == receive_place;
    const auto length = static_cast<std::uint16_t>(request.length.value());
    const std::array received = {
        Descriptor{.address = (receives ? request.data : received_.iova).value()}};
    const std::array header_and_data = {
        Descriptor{.address = sent_.iova.value(),
                   .length = static_cast<std::uint16_t>(header_bytes.value())},
        Descriptor{.address = request.data.value(), .length = length, .command = end_of_frame}};
    const std::array frame = {
        Descriptor{.address = sent_.iova.value(), .length = length, .command = end_of_frame}};
    const auto sent = receives ? std::span<const Descriptor>(frame) : header_and_data;
    stop();
    set_ring(reg::receive_ring, receive_ring_, received);
    set_ring(reg::transmit_ring, transmit_ring_, sent);
    registers_.write32(reg::receive_control, enable | everything | mac_loopback | strip_checksum);
    registers_.write32(reg::transmit_control, enable | pad_short);
    registers_.write32(reg::receive_ring + reg::tail, 1);
    registers_.write32(reg::transmit_ring + reg::tail, static_cast<std::uint32_t>(sent.size()));
    auto completed = [&] {
        return is_done(transmit_ring_, sent.size() - 1) && is_done(receive_ring_, 0);
    };
    MOAT_LET(const bool waited, wait_until(completed, 2s));
    std::uint32_t status = 0;
    std::memcpy(&status, receive_ring_.bytes.data() + 12, sizeof status);
    constexpr std::uint32_t errors = 0xff00;
    if (!waited)
        return Answer{Verdict::no_answer, status};
    return Answer{(status & errors) == 0 ? Verdict::success : Verdict::failure, status};
}

} // namespace e1000e

Result<std::unique_ptr<Driver>> start_e1000e(const Seat& seat) {
    return started<e1000e::E1000e>(seat, 0);
}

} // namespace moat::audit
