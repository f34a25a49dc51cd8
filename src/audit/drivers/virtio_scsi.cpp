// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of virtio SCSI controllers: the disk at target 0, by the first request queue.
// Source: Virtual I/O Device (VIRTIO) 1.2: 5.6 (SCSI host device).
#include "audit/drivers/scsi.hpp"
#include "audit/drivers/virtio_pci.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace moat::audit {
namespace virtio_scsi {

using scsi::Command;
using scsi::CommandBlock;
using virtio::Part;

/// 5.6.6.1, with the default sizes (5.6.4) of a command block and of sense data.
constexpr std::size_t header_bytes = 51;
constexpr std::size_t block_at = 19;
constexpr std::size_t response_bytes = 108;
constexpr std::size_t status_at = 10;
constexpr std::size_t response_at = 11;
constexpr std::uint64_t own_bytes = 36; ///< of its registers

constexpr std::uint16_t first_request_queue = 2;
constexpr ByteCount longest(std::uint64_t{1} << 20);

enum Place : std::uint8_t { read_place, write_place, flush_place };

constexpr std::array<Operation, 3> operations_of_scsi = {
    {on_medium("read", Content::loads, ByteCount(scsi::block_bytes), longest),
     on_medium("write", Content::stores, ByteCount(scsi::block_bytes), longest),
     {"flush", Direction::to_device, 0, ByteCount(1), ByteCount(0)}}};

class VirtioScsi final : public virtio::VirtioDriver, private scsi::Transport {
  public:
    explicit VirtioScsi(const Seat& seat)
        : VirtioDriver("virtio-scsi", operations_of_scsi, seat, virtio::Style::indirect) {}

    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare_disk();

  private:
    Result<void> start();
    Result<Answer> execute(const Request& request, const CommandBlock& block) override;

    virtio::Queue* requests_ = nullptr;
    Buffer header_{};
    Buffer response_{};
    Buffer capacity_{};
    bool running_ = false;
};

Result<void> VirtioScsi::prepare_disk() {
    MOAT_TRY(find_registers(own_bytes));
    MOAT_LET(requests_, create_queue(first_request_queue));
    using enum Direction;
    MOAT_TRY(
        obtain({{header_, {"request header", to_device, ByteCount(header_bytes), 3}},
                {response_, {"response", from_device, ByteCount(response_bytes), 2}},
                {capacity_, {"capacity", from_device, scsi::capacity_bytes, 0, Use::at_start}}}));
    MOAT_TRY(enable_interrupts(1));
    MOAT_TRY(start());
    MOAT_LET(const Medium medium, scsi::size_of_disk(*this, read_place, capacity_));
    set_medium(medium);
    return {};
}

/// Waits until the disk is ready: the first command after a reset fails.
Result<void> VirtioScsi::start() {
    MOAT_TRY(start_device());
    running_ = true;
    return scsi::become_ready(*this, flush_place, running_);
}

Result<Answer> VirtioScsi::do_run(const Request& request) {
    if (!running_)
        MOAT_TRY(start());
    constexpr std::array commands = {Command::read_10, Command::write_10,
                                     Command::synchronize_cache};
    return execute(
        request, scsi::block_of(commands.at(request.operation), request.position, request.length));
}

/// 5.6.6.1: a header, data for the device, the response, data from the device.
Result<Answer> VirtioScsi::execute(const Request& request, const CommandBlock& block) {
    constexpr std::array<std::uint8_t, 4> unit_0_of_target_0 = {1, 0, 0x40, 0};
    std::memcpy(header_.bytes.data(), unit_0_of_target_0.data(), unit_0_of_target_0.size());
    std::memcpy(header_.bytes.data() + block_at, block.data(), block.size());
    std::ranges::fill(response_.bytes, std::byte{0xff});
    const Part header{header_.iova, header_bytes, false};
    const Part response{response_.iova, response_bytes, true};
    const bool writes = request.operation == write_place;
    const Part data{request.data, request.length.value(), !writes};
    if (request.length == ByteCount(0))
        post(*requests_, std::array{header, response});
    else
        post(*requests_,
             writes ? std::array{header, data, response} : std::array{header, response, data});
    MOAT_LET(const bool waited, wait_for(*requests_));
    if (!waited) {
        running_ = false;
        return no_answer();
    }
    const auto status = static_cast<std::uint64_t>(response_.bytes[status_at]);
    const auto code = static_cast<std::uint64_t>(response_.bytes[response_at]);
    const bool is_good = status == 0 && code == 0;
    return Answer{is_good ? Verdict::success : Verdict::failure, code << 8 | status};
}

} // namespace virtio_scsi

Result<std::unique_ptr<Driver>> start_virtio_scsi(const Seat& seat) {
    auto driver = std::make_unique<virtio_scsi::VirtioScsi>(seat);
    MOAT_TRY(driver->prepare_disk());
    return driver;
}

} // namespace moat::audit
