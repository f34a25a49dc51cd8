// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The card's frames: from the transmit queue through the cable into the receive queue.
#include "machine/soft/nic.hpp"
#include "machine/soft/nic_registers.hpp"

#include <algorithm>
#include <span>

namespace moat::machine::soft {

namespace {

constexpr unsigned most_frames_a_step = 32;

/// In the header before a received frame: how many buffers it fills.
constexpr std::size_t header_buffers = 10;

[[nodiscard]] std::uint64_t bytes_of(std::span<const Segment> segments) {
    std::uint64_t bytes = 0;
    for (const Segment& each : segments)
        bytes += each.bytes;
    return bytes;
}

} // namespace

bool Nic::forward(BusMaster& bus) {
    if (!is_running() || !notified_)
        return false;
    // While it is awake, and of receive buffers at any time, it needs no notifications.
    for (const unsigned queue : {receive_queue, transmit_queue})
        want_notifications(bus, queue, false);
    unsigned frames = 0;
    for (; frames != most_frames_a_step && take(bus, transmit_queue); ++frames)
        if (transmit(bus))
            receive(bus);
    for (const unsigned queue : {receive_queue, transmit_queue})
        publish(bus, queue);
    if (frames == 0) {
        want_notifications(bus, transmit_queue, true);
        notified_ = is_running() && queues_[transmit_queue].queue->has_more(bus);
    }
    return notified_;
}

void Nic::want_notifications(BusMaster& bus, unsigned queue, bool want) {
    if (is_running() && queues_[queue].queue &&
        !queues_[queue].queue->want_notifications(bus, want))
        need_reset(bus);
}

bool Nic::take(BusMaster& bus, unsigned queue) {
    if (!is_running() || !queues_[queue].queue)
        return false;
    const VirtioQueue::Taken taken = queues_[queue].queue->take(bus, chain_);
    const auto& wrong = queue == receive_queue ? chain_.readable : chain_.writable;
    if (taken == VirtioQueue::Taken::chain && wrong.empty())
        return true;
    if (taken == VirtioQueue::Taken::nothing)
        return false;
    if (taken == VirtioQueue::Taken::too_many)
        remark({.mistake = Mistake::available_past_queue, .queue = queue});
    else if (taken != VirtioQueue::Taken::unreachable)
        remark({.mistake = Mistake::invalid_descriptors, .queue = queue, .value = chain_.head});
    need_reset(bus);
    return false;
}

bool Nic::transmit(BusMaster& bus) {
    const std::uint64_t bytes = bytes_of(chain_.readable);
    const bool fits = bytes > header_bytes && bytes <= header_bytes + most_frame;
    if (fits)
        frame_.resize(bytes);
    else
        remark({.mistake = Mistake::invalid_frame_length,
                .queue = transmit_queue,
                .value = chain_.head});
    const bool sent = fits && data_.from_memory(bus, chain_.readable, frame_);
    queues_[transmit_queue].queue->give_back(chain_, 0);
    return sent;
}

void Nic::receive(BusMaster& bus) {
    if (!take(bus, receive_queue)) {
        ++dropped_;
        return;
    }
    std::ranges::fill(std::span(frame_).first(header_bytes), std::byte{0});
    frame_[header_buffers] = std::byte{1};
    if (bytes_of(chain_.writable) < frame_.size()) {
        remark({.mistake = Mistake::receive_buffer_too_short,
                .queue = receive_queue,
                .value = chain_.head});
        ++dropped_;
        return queues_[receive_queue].queue->give_back(chain_, 0);
    }
    const bool arrived = data_.to_memory(bus, chain_.writable, frame_);
    queues_[receive_queue].queue->give_back(chain_, arrived ? frame_.size() : 0);
    ++(arrived ? received_ : dropped_);
}

void Nic::publish(BusMaster& bus, unsigned queue) {
    if (!is_running() || !queues_[queue].queue)
        return;
    switch (queues_[queue].queue->publish(bus)) {
    case VirtioQueue::Published::quietly:
        return;
    case VirtioQueue::Published::with_interrupt:
        return raise(bus, queues_[queue].vector, nic_cause::queue);
    case VirtioQueue::Published::unreachable:
        return need_reset(bus);
    }
}

void Nic::raise(BusMaster& bus, unsigned vector, std::uint8_t cause) {
    causes_ |= cause;
    bus.interrupt(vector);
}

void Nic::need_reset(BusMaster& bus) {
    status_ |= nic_status::needs_reset;
    raise(bus, config_vector_, nic_cause::configuration);
}

} // namespace moat::machine::soft
