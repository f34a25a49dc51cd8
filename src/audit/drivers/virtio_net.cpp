// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of virtio network devices, on a network that returns each frame: each operation sends
// one and receives it, from or into a store of the driver's own.
// Source: Virtual I/O Device (VIRTIO) 1.2: 5.1 (network device).
#include "audit/driver.hpp"
#include "audit/drivers/virtio_pci.hpp"

#include <array>
#include <chrono>

namespace moat::audit {
namespace virtio_net {

using namespace std::chrono_literals;

using virtio::Part;

/// 5.1.2
constexpr std::uint16_t receive_queue = 0;
constexpr std::uint16_t transmit_queue = 1;

constexpr std::uint64_t own_bytes = 6;     ///< of its registers: the address
constexpr std::uint64_t header_bytes = 12; ///< before each frame; zeros ask for nothing (5.1.6)

constexpr ByteCount shortest(60);
constexpr ByteCount longest(1514);
constexpr ByteCount store_bytes(8192);

enum Place : std::uint8_t { transmit_place, receive_place };

/// Frames come back to the store, so that a later operation sends them to the data.
constexpr std::array<Operation, 2> operations_of_net = {{{.name = "transmit",
                                                          .direction = Direction::to_device,
                                                          .longest = longest,
                                                          .shortest = shortest,
                                                          .content = Content::stores},
                                                         {.name = "receive",
                                                          .direction = Direction::from_device,
                                                          .longest = longest,
                                                          .shortest = shortest,
                                                          .content = Content::loads}}};

class VirtioNet final : public virtio::VirtioDriver {
  public:
    explicit VirtioNet(const Seat& seat)
        : VirtioDriver("virtio-net", operations_of_net, seat, virtio::Style::plain) {}

    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare();

  private:
    Result<void> start();

    virtio::Queue* receive_ = nullptr;
    virtio::Queue* transmit_ = nullptr;
    Buffer sent_header_{};
    Buffer received_header_{};
    Buffer store_{};
    bool running_ = false;
};

Result<void> VirtioNet::prepare() {
    MOAT_TRY(find_registers(own_bytes));
    set_medium({.size = store_bytes, .is_kept = false});
    MOAT_LET(receive_, create_queue(receive_queue));
    MOAT_LET(transmit_, create_queue(transmit_queue));
    using enum Direction;
    const ByteCount header(header_bytes);
    MOAT_TRY(obtain({{sent_header_, {"sent header", to_device, header, 1}},
                     {received_header_, {"received header", from_device, header, 1}},
                     {store_, {"frame store", bidirectional, store_bytes, 0}}}));
    MOAT_TRY(enable_interrupts(2));
    return start();
}

Result<void> VirtioNet::start() {
    MOAT_TRY(start_device());
    running_ = true;
    return {};
}

Result<Answer> VirtioNet::do_run(const Request& request) {
    if (request.position > store_bytes.value() - request.length.value())
        return fail(ErrorCode::out_of_range, "outside of the frame store",
                    {"position", request.position}, {"length", request.length.value()});
    if (!running_)
        MOAT_TRY(start());
    const std::uint64_t bytes = request.length.value();
    const bool receives = request.operation == receive_place;
    const Iova stored = store_.iova + ByteCount(request.position);
    post(*receive_, std::array{Part{received_header_.iova, header_bytes, true},
                               Part{receives ? request.data : stored, bytes, true}});
    post(*transmit_, std::array{Part{sent_header_.iova, header_bytes},
                                Part{receives ? stored : request.data, bytes}});
    MOAT_LET(bool done, wait_for(*transmit_, 2s));
    if (done) {
        MOAT_LET(done, wait_for(*receive_, 2s));
    }
    if (!done) {
        running_ = false;
        return no_answer();
    }
    const std::uint64_t written = receive_->written();
    return Answer{written == header_bytes + bytes ? Verdict::success : Verdict::failure, written};
}

} // namespace virtio_net

Result<std::unique_ptr<Driver>> start_virtio_net(const Seat& seat) {
    auto driver = std::make_unique<virtio_net::VirtioNet>(seat);
    MOAT_TRY(driver->prepare());
    return driver;
}

} // namespace moat::audit
