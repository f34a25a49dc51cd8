// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of Intel 82540EM (e1000) and 82574 (e1000e) network controllers, looped back: each
// operation sends one frame and receives it.
// Source: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual 4.0: 3.2
// (receive), 3.3 (transmit), 13.4 (registers); Intel 82574 GbE Controller Family datasheet, 7.1,
// 7.2, 10.
#include "audit/driver.hpp"
#include "audit/drivers/device.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <span>

namespace moat::audit {
namespace e1000 {

using namespace std::chrono_literals;

namespace reg {

constexpr unsigned control = 0x0000;
constexpr unsigned phy = 0x0020; ///< reads and writes the PHY's registers
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

/// Of `control`.
constexpr std::uint32_t reset = 1U << 26;
constexpr std::uint32_t link_up = 1U << 6;
/// Full duplex at 1000 Mb/s, both forced.
constexpr std::uint32_t forced_mode = 1U << 0 | 2U << 8 | 1U << 11 | 1U << 12;
/// Of `receive_control` and `transmit_control`.
constexpr std::uint32_t enable = 1U << 1;
constexpr std::uint32_t pad_short = 1U << 3;
constexpr std::uint32_t everything = 1U << 15 | 3U << 3; ///< broadcast, multicast, unicast
constexpr std::uint32_t mac_loopback = 1U << 6;
constexpr std::uint32_t phy_loopback = 3U << 6;
constexpr std::uint32_t strip_checksum = 1U << 26;
/// Of `phy`: a write to register 0 of the internal PHY.
constexpr std::uint32_t write_phy_control = 1U << 26 | 1U << 21;
constexpr std::uint32_t phy_ready = 1U << 28;
/// Of the PHY's control: loopback, full duplex, 1000 Mb/s (IEEE 802.3, 22.2.4.1).
constexpr std::uint32_t phy_loops = 1U << 14 | 1U << 8 | 1U << 6;

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

constexpr std::array<Operation, 2> operations_of_e1000 = {
    {{"receive", Direction::from_device, 0, ByteCount(1), longest, shortest},
     {"transmit", Direction::to_device, 0, ByteCount(1), longest_payload, shortest}}};

/// What differs between the controllers: the 82540EM cannot loop back at its MAC.
struct Model {
    std::string_view name;
    bool loops_at_phy;
};

/// A ring of descriptors that the driver fills one operation at a time.
class Ring {
  public:
    /// `at`: its registers.
    Ring(machine::Registers& registers, unsigned at) : registers_(registers), at_(at) {}

    /// For obtain().
    [[nodiscard]] KeptBuffer needed(std::string_view name) {
        return {memory_,
                {name, Direction::bidirectional, ByteCount(depth * sizeof(Descriptor)), 7}};
    }

    /// Empties the ring of a controller whose queues are disabled.
    void set_up() {
        std::ranges::fill(memory_.bytes, std::byte{0});
        registers_.write_halves(at_ + reg::base, memory_.iova.value());
        registers_.write32(at_ + reg::bytes, depth * sizeof(Descriptor));
        registers_.write32(at_ + reg::head, 0);
        registers_.write32(at_ + reg::tail, 0);
        next_ = 0;
    }

    void post(std::span<const Descriptor> descriptors) {
        for (const Descriptor& each : descriptors) {
            last_ = next_;
            std::memcpy(memory_.bytes.data() + last_ * sizeof each, &each, sizeof each);
            next_ = (next_ + 1) % depth;
        }
        registers_.write32(at_ + reg::tail, next_);
    }

    /// The status of the last descriptor; acquires what the device wrote before it.
    [[nodiscard]] std::uint32_t status() const {
        auto& word = reinterpret_cast<std::uint32_t*>(memory_.bytes.data())[4 * last_ + 3];
        return std::atomic_ref<std::uint32_t>(word).load(std::memory_order_acquire);
    }

    [[nodiscard]] bool is_done() const { return (status() & 1) != 0; }

  private:
    machine::Registers& registers_;
    const unsigned at_;
    Buffer memory_{};
    unsigned next_ = 0;
    unsigned last_ = 0;
};

class E1000 final : public DeviceDriver {
  public:
    E1000(const Model& model, const Seat& seat, machine::Registers& registers)
        : DeviceDriver(model.name, operations_of_e1000, seat), model_(model), registers_(registers),
          receive_(registers, reg::receive_ring), transmit_(registers, reg::transmit_ring) {}

    ~E1000() override {
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
        running_ = false;
    }

    Result<void> start();
    Result<void> loop_back();
    Result<void> receive_a_frame();

    /// Sends a frame that lies in `sent_`.
    void send(ByteCount length) {
        transmit_.post(std::array{Descriptor{.address = sent_.iova.value(),
                                             .length = static_cast<std::uint16_t>(length.value()),
                                             .command = end_of_frame}});
    }

    const Model& model_;
    machine::Registers& registers_;
    Ring receive_;
    Ring transmit_;
    Buffer received_{}; ///< the destination of the frame that `transmit` sends
    Buffer sent_{};     ///< the frame that `receive` gets, and the header of `transmit`'s
    bool running_ = false;
};

Result<void> E1000::prepare() {
    if (!has_registers())
        return fail(ErrorCode::io, "a controller with too few registers");
    using enum Direction;
    MOAT_TRY(obtain({receive_.needed("receive ring"),
                     transmit_.needed("transmit ring"),
                     {received_, {"received frame", from_device, ByteCount(frame_room), 0}},
                     {sent_, {"sent frame", to_device, longest, 0}}}));
    // A broadcast frame of an experimental type (IEEE 802, 0x88b5).
    for (std::size_t i = 0; i != sent_.bytes.size(); ++i)
        sent_.bytes[i] = static_cast<std::byte>(i < 6 ? 0xff : i);
    sent_.bytes[12] = std::byte{0x88};
    sent_.bytes[13] = std::byte{0xb5};
    return start();
}

Result<void> E1000::start() {
    registers_.write32(reg::control, reset);
    auto is_reset = [&] { return (registers_.read32(reg::control) & reset) == 0; };
    MOAT_TRY(require(is_reset, 1s, "the controller does not reset"));
    registers_.write32(reg::interrupt_mask_clear, ~0U);
    function().set_bus_master(true);
    stop();
    receive_.set_up();
    transmit_.set_up();
    MOAT_TRY(loop_back());
    registers_.write32(reg::transmit_control, enable | pad_short);
    MOAT_TRY(receive_a_frame());
    running_ = true;
    return {};
}

Result<void> E1000::loop_back() {
    registers_.write32(reg::control, link_up | (model_.loops_at_phy ? forced_mode : 0));
    if (model_.loops_at_phy) {
        registers_.write32(reg::phy, write_phy_control | phy_loops);
        auto is_written = [&] { return (registers_.read32(reg::phy) & phy_ready) != 0; };
        MOAT_TRY(require(is_written, 1s, "the controller's PHY does not answer"));
    }
    registers_.write32(reg::receive_control,
                       enable | everything | strip_checksum |
                           (model_.loops_at_phy ? phy_loopback : mac_loopback));
    return health();
}

/// Waits for the receiver: QEMU's 82540EM drops frames for a second after a write to
/// `receive_control`.
Result<void> E1000::receive_a_frame() {
    receive_.post(std::array{Descriptor{.address = received_.iova.value()}});
    auto arrived = [&] { return receive_.is_done(); };
    constexpr unsigned tries = 100;
    for (unsigned i = 0; i != tries; ++i) {
        send(shortest);
        MOAT_LET(const bool waited, wait_until(arrived, 20ms));
        if (waited)
            return {};
    }
    return fail(ErrorCode::io, "the controller does not receive the frames that it sends");
}

/// What `transmit` sends lies behind a header, because a controller may drop frames whose data it
/// takes for a protocol's header with an error.
Result<Answer> E1000::do_run(const Request& request) {
    if (!running_)
        MOAT_TRY(start());
    const bool receives = request.operation == receive_place;
    receive_.post(
        std::array{Descriptor{.address = (receives ? request.data : received_.iova).value()}});
    if (receives)
        send(request.length);
    else
        transmit_.post(
            std::array{Descriptor{.address = sent_.iova.value(),
                                  .length = static_cast<std::uint16_t>(header_bytes.value())},
                       Descriptor{.address = request.data.value(),
                                  .length = static_cast<std::uint16_t>(request.length.value()),
                                  .command = end_of_frame}});
    auto completed = [&] { return transmit_.is_done() && receive_.is_done(); };
    MOAT_LET(const bool waited, wait_until(completed, 500ms));
    const std::uint32_t status = receive_.status();
    constexpr std::uint32_t errors = 0xff00;
    if (!waited) {
        stop();
        return Answer{Verdict::no_answer, status};
    }
    return Answer{(status & errors) == 0 ? Verdict::success : Verdict::failure, status};
}

Result<std::unique_ptr<Driver>> start(const Model& model, const Seat& seat) {
    MOAT_LET(machine::Registers* const registers, seat.function.bar(0));
    auto driver = std::make_unique<E1000>(model, seat, *registers);
    MOAT_TRY(driver->prepare());
    return driver;
}

constexpr Model intel_82540em{.name = "e1000", .loops_at_phy = true};
constexpr Model intel_82574{.name = "e1000e", .loops_at_phy = false};

} // namespace e1000

Result<std::unique_ptr<Driver>> start_e1000(const Seat& seat) {
    return e1000::start(e1000::intel_82540em, seat);
}

Result<std::unique_ptr<Driver>> start_e1000e(const Seat& seat) {
    return e1000::start(e1000::intel_82574, seat);
}

} // namespace moat::audit
