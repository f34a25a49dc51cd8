// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of a USB disk behind an xHCI controller: commands by bulk-only transport.
// Source: USB Mass Storage Class, Bulk-Only Transport 1.0, 5 and 6; USB 3.2, 9 (descriptors).
#include "audit/drivers/scsi.hpp"
#include "audit/drivers/xhci.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

namespace moat::audit {
namespace usb_storage {

using scsi::Command;
using scsi::CommandBlock;
using xhci::Endpoint;
using xhci::Outcome;

/// 5.1, in memory layout; the device knows its end by its length of 31 bytes.
struct CommandWrapper {
    std::uint32_t signature = 0x43425355;
    std::uint32_t tag = 0;
    std::uint32_t length = 0;
    std::uint8_t flags = 0; ///< bit 7: data comes from the device
    std::uint8_t unit = 0;
    std::uint8_t block_bytes = 0;
    CommandBlock block{};
    std::uint8_t unused = 0;
};

constexpr std::size_t command_bytes = 31;

/// 5.2
struct StatusWrapper {
    std::uint32_t signature;
    std::uint32_t tag;
    std::uint32_t residue;
    std::uint8_t status; ///< 0 passed, 1 failed
    std::array<std::uint8_t, 3> unused;
};

constexpr std::size_t status_bytes = 13;
constexpr ByteCount descriptor_room(255);

enum Place : std::uint8_t {
    read_place,
    write_place,
    read_moved_place,
    descriptor_place,
    flush_place
};

class UsbStorage final : public xhci::XhciDriver, private scsi::Transport {
  public:
    UsbStorage(const Seat& seat, machine::Registers& registers)
        : XhciDriver("xhci", seat, registers) {}

    [[nodiscard]] std::vector<Need> lists_for(const Request& request) const override;
    [[nodiscard]] Result<Answer> do_run(const Request& request) override;
    [[nodiscard]] Result<bool> delete_queues() override;

    Result<void> prepare();

  private:
    Result<void> start();
    Result<void> learn();
    Result<Outcome> read_configuration(Iova to, ByteCount length);
    Result<Answer> execute(const Request& request, const CommandBlock& block) override;
    Result<Outcome> move_data(const Request& request);
    Answer failed(const Outcome& outcome);

    std::vector<Operation> operations_;
    Buffer descriptor_{};
    Buffer command_{};
    Buffer status_{};
    Endpoint in_{};
    Endpoint out_{};
    std::uint8_t configuration_ = 0;
    std::uint32_t tag_ = 0;
    bool running_ = false;
};

Result<void> UsbStorage::prepare() {
    MOAT_TRY(prepare_controller());
    using enum Direction;
    MOAT_TRY(
        obtain({{command_, {"command wrapper", to_device, ByteCount(command_bytes), 0}},
                {status_, {"status wrapper", from_device, ByteCount(status_bytes), 0}},
                {descriptor_, {"descriptor", from_device, descriptor_room, 0, Use::at_start}}}));
    MOAT_TRY(start_controller());
    MOAT_TRY(learn());
    MOAT_TRY(start());
    MOAT_LET(const Medium medium, scsi::size_of_disk(*this, read_place, descriptor_));
    set_medium(medium);
    return {};
}

Result<Outcome> UsbStorage::read_configuration(Iova to, ByteCount length) {
    constexpr std::uint8_t get_descriptor = 6;
    constexpr std::uint16_t first_configuration = 2 << 8;
    return request({.kind = 0x80,
                    .request = get_descriptor,
                    .value = first_configuration,
                    .length = static_cast<std::uint16_t>(length.value())},
                   to);
}

/// Finds the bulk endpoints of the first interface.
Result<void> UsbStorage::learn() {
    MOAT_LET(const Outcome outcome, read_configuration(descriptor_.iova, descriptor_room));
    const auto byte = [&](std::size_t at) {
        return static_cast<std::uint8_t>(descriptor_.bytes[at]);
    };
    const std::size_t total =
        std::min<std::size_t>(byte(2) | std::size_t{byte(3)} << 8, descriptor_room.value());
    configuration_ = byte(5);
    constexpr unsigned endpoint_descriptor = 5;
    constexpr unsigned bulk = 2;
    for (std::size_t at = 0; outcome.is_good() && at + 7 <= total && byte(at) != 0;
         at += byte(at)) {
        if (byte(at + 1) != endpoint_descriptor || (byte(at + 3) & 3) != bulk)
            continue;
        const unsigned number = byte(at + 2) & 0xfU;
        const bool is_in = (byte(at + 2) & 0x80) != 0;
        Endpoint& found = is_in ? in_ : out_;
        if (found.index == 0)
            found = {2 * number + (is_in ? 1 : 0),
                     (byte(at + 4) | std::uint32_t{byte(at + 5)} << 8) & 0x7ff};
    }
    if (in_.index < 2 || out_.index < 2 || in_.packet == 0 || out_.packet == 0)
        return fail(ErrorCode::unsupported, "a USB device without a disk", {"bytes", total});
    using enum Direction;
    constexpr ByteCount block(scsi::block_bytes);
    operations_ = {on_medium("read", Content::loads, block, xhci::longest_data),
                   on_medium("write", Content::stores, block, xhci::longest_data),
                   on_medium("read by a moved ring", Content::loads, block, xhci::longest_data),
                   {.name = "descriptor",
                    .direction = from_device,
                    .longest = descriptor_room,
                    .fills = ByteCount(total)},
                   {"flush", to_device, 0, ByteCount(1), ByteCount(0)}};
    set_operations(operations_);
    return {};
}

/// Configures the device, and waits until its disk is ready: the first command after a reset fails.
Result<void> UsbStorage::start() {
    constexpr std::uint8_t set_configuration = 9;
    MOAT_TRY(configure(in_, out_));
    MOAT_LET(const Outcome configured,
             request({.kind = 0, .request = set_configuration, .value = configuration_}));
    running_ = configured.is_good();
    return scsi::become_ready(*this, flush_place, running_);
}

std::vector<Need> UsbStorage::lists_for(const Request& request) const {
    if (request.operation != read_moved_place)
        return {};
    return {{.what = "moved transfer ring",
             .direction = Direction::to_device,
             .size = ring_for(request.data, request.length),
             .alignment_lg2 = 4}};
}

Result<Answer> UsbStorage::do_run(const Request& request) {
    if (!running_) {
        MOAT_TRY(start_controller());
        MOAT_TRY(start());
    }
    if (request.operation == descriptor_place) {
        MOAT_LET(const Outcome outcome, read_configuration(request.data, request.length));
        return outcome.is_good() ? Answer{Verdict::success, 0} : failed(outcome);
    }
    constexpr std::array commands = {Command::read_10, Command::write_10, Command::read_10,
                                     Command::test_unit_ready, Command::synchronize_cache};
    return execute(
        request, scsi::block_of(commands.at(request.operation), request.position, request.length));
}

Result<bool> UsbStorage::delete_queues() {
    if (!std::exchange(running_, false))
        return false;
    MOAT_LET(const Outcome outcome, disable_slot());
    return outcome.is_good();
}

/// A transfer that fails leaves device and controller in a state that only a restart ends.
Answer UsbStorage::failed(const Outcome& outcome) {
    running_ = false;
    return outcome.answered ? Answer{Verdict::failure, outcome.code}
                            : Answer{Verdict::no_answer, status()};
}

Result<Outcome> UsbStorage::move_data(const Request& request) {
    if (request.operation != read_moved_place)
        return transfer(request.operation == write_place ? out_ : in_, request.data,
                        request.length);
    if (request.lists.empty())
        return fail(ErrorCode::out_of_range, "the operation needs a transfer ring");
    return transfer_elsewhere(in_, request.data, request.length, request.lists[0]);
}

/// 5.3: the command, the data if there are any, the status.
Result<Answer> UsbStorage::execute(const Request& request, const CommandBlock& block) {
    const CommandWrapper wrapper{
        .tag = ++tag_,
        .length = static_cast<std::uint32_t>(request.length.value()),
        .flags = static_cast<std::uint8_t>(request.operation == write_place ? 0 : 0x80),
        .block_bytes = scsi::length_of(block),
        .block = block};
    std::memcpy(command_.bytes.data(), &wrapper, command_bytes);
    MOAT_LET(const Outcome sent, transfer(out_, command_.iova, ByteCount(command_bytes)));
    if (!sent.is_good())
        return failed(sent);
    if (request.length != ByteCount(0)) {
        MOAT_LET(const Outcome moved, move_data(request));
        if (!moved.is_good())
            return failed(moved);
    }
    std::ranges::fill(status_.bytes, std::byte{0});
    MOAT_LET(const Outcome received, transfer(in_, status_.iova, ByteCount(status_bytes)));
    if (!received.is_good())
        return failed(received);
    StatusWrapper answer{};
    std::memcpy(&answer, status_.bytes.data(), status_bytes);
    constexpr std::uint32_t signature = 0x53425355;
    // 6.3: anything else needs a reset.
    if (answer.signature != signature || answer.tag != tag_ || answer.status > 1) {
        running_ = false;
        return Answer{Verdict::no_answer, answer.status};
    }
    return Answer{answer.status == 0 ? Verdict::success : Verdict::failure, answer.status};
}

} // namespace usb_storage

Result<std::unique_ptr<Driver>> start_xhci(const Seat& seat) {
    return started<usb_storage::UsbStorage>(seat, 0);
}

} // namespace moat::audit
