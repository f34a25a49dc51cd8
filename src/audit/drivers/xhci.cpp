// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/drivers/xhci.hpp"

#include "moat/core/bits.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

namespace moat::audit::xhci {

namespace {

using namespace std::chrono_literals;

namespace cap { // 5.3

constexpr unsigned length = 0x00;
constexpr unsigned structure_1 = 0x04;
constexpr unsigned structure_2 = 0x08;
constexpr unsigned parameters = 0x10;
constexpr unsigned doorbells = 0x14;
constexpr unsigned runtime = 0x18;
constexpr unsigned bytes = 0x20;

} // namespace cap

namespace op { // 5.4

constexpr unsigned command = 0x00;
constexpr unsigned status = 0x04;
constexpr unsigned command_ring = 0x18;
constexpr unsigned contexts = 0x30;
constexpr unsigned configure = 0x38;
constexpr unsigned ports = 0x400;
constexpr unsigned port_bytes = 0x10;

} // namespace op

namespace irq { // 5.5.2, of the first interrupter

constexpr unsigned management = 0x20;
constexpr unsigned moderation = 0x24;
constexpr unsigned table_size = 0x28;
constexpr unsigned table = 0x30;
constexpr unsigned dequeue = 0x38;
constexpr unsigned bytes = 0x40;

} // namespace irq

constexpr std::uint32_t command_run = 1U << 0;
constexpr std::uint32_t command_reset = 1U << 1;
constexpr std::uint32_t command_interrupts = 1U << 2;
constexpr std::uint32_t status_halted = 1U << 0;
constexpr std::uint32_t status_system_error = 1U << 2;
constexpr std::uint32_t status_not_ready = 1U << 11;
constexpr std::uint32_t status_controller_error = 1U << 12;
constexpr std::uint32_t port_connected = 1U << 0;
constexpr std::uint32_t port_enabled = 1U << 1;
constexpr std::uint32_t port_reset = 1U << 4;
constexpr std::uint32_t port_power = 1U << 9;
constexpr std::uint32_t port_reset_changed = 1U << 21;

/// 6.4.6
enum Type : std::uint32_t {
    normal = 1,
    setup_stage = 2,
    data_stage = 3,
    status_stage = 4,
    link = 6,
    enable_slot = 9,
    disable_slot_command = 10,
    address_device = 11,
    configure_endpoint = 12,
    stop_endpoint = 15,
    set_dequeue = 16,
    transfer_event = 32,
    command_completion = 33,
};

constexpr std::uint32_t cycle = 1U << 0;
constexpr std::uint32_t toggle_cycle = 1U << 1; ///< of a link
constexpr std::uint32_t event_if_short = 1U << 2;
constexpr std::uint32_t chain = 1U << 4;
constexpr std::uint32_t event_if_done = 1U << 5;
constexpr std::uint32_t immediate = 1U << 6;
constexpr std::uint32_t towards_host = 1U << 16; ///< of a data or status stage

constexpr std::size_t ring_depth = 32;
constexpr std::uint64_t boundary = 0x10000; ///< no TRB's data crosses a multiple of it (6.4.1)
constexpr unsigned control_endpoint = 1;
constexpr unsigned contexts_of_device = 32;

constexpr std::uint32_t control_of(Type type) {
    return type << 10;
}

Type type_of(const Trb& trb) {
    return static_cast<Type>(trb.control >> 10 & 0x3f);
}

/// Publishes the TRB by its last word, which has the cycle.
void write_trb(std::byte* at, const Trb& trb) {
    std::memcpy(at, &trb, 12);
    auto& word = reinterpret_cast<std::uint32_t*>(at)[3];
    std::atomic_ref<std::uint32_t>(word).store(trb.control, std::memory_order_release);
}

/// A transfer's TRBs, each within its 64 KiB; without their cycle.
std::vector<Trb> data_trbs(Iova data, ByteCount length, std::uint32_t packet) {
    std::vector<Trb> all;
    std::uint64_t at = data.value();
    for (std::uint64_t left = length.value(); left != 0;) {
        const std::uint64_t bytes = std::min(left, boundary - at % boundary);
        left -= bytes;
        // The number of packets behind this TRB, at most 31 (4.11.2.4).
        const std::uint64_t packets = std::min<std::uint64_t>((left + packet - 1) / packet, 31);
        all.push_back({.parameter = at,
                       .status = static_cast<std::uint32_t>(bytes | packets << 17),
                       .control = control_of(normal) | (left != 0 ? chain : 0)});
        at += bytes;
    }
    return all;
}

} // namespace

void Ring::restart(const Buffer& memory) {
    memory_ = memory;
    next_ = 0;
    cycle_ = 1;
    std::ranges::fill(memory_.bytes, std::byte{0});
}

void Ring::put(Trb trb) {
    trb.control = (trb.control & ~cycle) | cycle_;
    write_trb(memory_.bytes.data() + sizeof(Trb) * next_, trb);
}

Iova Ring::append(Trb trb) {
    const Iova at = memory_.iova + ByteCount(sizeof(Trb) * next_);
    put(trb);
    if (++next_ + 1 == memory_.bytes.size() / sizeof(Trb)) {
        // A link within a transfer is chained, too (4.11.5.1).
        put({.parameter = memory_.iova.value(),
             .control = control_of(link) | toggle_cycle | (trb.control & chain)});
        next_ = 0;
        cycle_ ^= 1;
    }
    return at;
}

void EventRing::restart(const Buffer& memory) {
    memory_ = memory;
    next_ = 0;
    cycle_ = 1;
    std::ranges::fill(memory_.bytes, std::byte{0});
}

std::optional<Trb> EventRing::take() {
    std::byte* const at = memory_.bytes.data() + sizeof(Trb) * next_;
    auto& word = reinterpret_cast<std::uint32_t*>(at)[3];
    const std::uint32_t control =
        std::atomic_ref<std::uint32_t>(word).load(std::memory_order_acquire);
    if ((control & cycle) != cycle_)
        return std::nullopt;
    Trb event;
    std::memcpy(&event, at, sizeof event);
    event.control = control;
    if (++next_ == memory_.bytes.size() / sizeof(Trb)) {
        next_ = 0;
        cycle_ ^= 1;
    }
    return event;
}

/// Rejects register sets outside the BAR.
Result<void> XhciDriver::find_registers() {
    const std::uint64_t all = registers_.size().value();
    const auto fits = [&](std::uint64_t offset, std::uint64_t bytes) {
        return offset % 4 == 0 && offset <= all && bytes <= all - offset;
    };
    if (!fits(0, cap::bytes))
        return fail(ErrorCode::io, "a controller with too few registers", {"bar_bytes", all});
    operational_ = registers_.read8(cap::length);
    runtime_ = registers_.read32(cap::runtime) & ~0x1fU;
    doorbells_ = registers_.read32(cap::doorbells) & ~3U;
    ports_ = registers_.read32(cap::structure_1) >> 24;
    context_words_ = (registers_.read32(cap::parameters) & 1U << 2) != 0 ? 16 : 8;
    constexpr std::uint64_t two_doorbells = 8; // of the controller and the first slot
    if (!fits(operational_, op::ports + std::uint64_t{ports_} * op::port_bytes) ||
        !fits(runtime_, irq::bytes) || !fits(doorbells_, two_doorbells))
        return fail(ErrorCode::io, "the controller's registers lie outside its BAR",
                    {"operational", operational_}, {"runtime", runtime_}, {"doorbells", doorbells_},
                    {"bar_bytes", all});
    has_registers_ = true;
    return {};
}

Result<void> XhciDriver::prepare_controller() {
    MOAT_TRY(find_registers());
    using enum Direction;
    const ByteCount context(std::uint64_t{4} * context_words_);
    const ByteCount ring(ring_depth * sizeof(Trb));
    const auto transfer_ring = [&](std::string_view what) {
        return Need{what, to_device, ring, 6};
    };
    MOAT_TRY(obtain(
        {{contexts_, {"device context array", to_device, ByteCount(16), 6}},
         {device_context_,
          {"device context", bidirectional, ByteCount(contexts_of_device * context.value()), 6}},
         {input_context_,
          {"input context", to_device, ByteCount((contexts_of_device + 1) * context.value()), 6}},
         {segment_table_, {"event ring segment table", to_device, ByteCount(sizeof(Trb)), 6}},
         {event_memory_, {"event ring", from_device, ring, 6}},
         {command_memory_, transfer_ring("command ring")},
         {ring_memory_[0], transfer_ring("control transfer ring")},
         {ring_memory_[1], transfer_ring("transfer ring in")},
         {ring_memory_[2], transfer_ring("transfer ring out")}}));
    // 5.3.4, 4.20: pages of the controller's own.
    const std::uint32_t structure = registers_.read32(cap::structure_2);
    const std::uint64_t pages = (structure >> 21 & 0x1f) << 5 | structure >> 27;
    if (pages != 0)
        MOAT_TRY(
            obtain({{scratchpad_array_, {"scratchpad array", to_device, ByteCount(8 * pages), 6}},
                    {scratchpads_, {"scratchpads", bidirectional, ByteCount(4096 * pages), 12}}}));
    return enable_interrupts(1);
}

std::uint32_t XhciDriver::status() {
    return registers_.read32(operational_ + op::status);
}

Result<void> XhciDriver::halt() {
    registers_.write32(operational_ + op::command, 0);
    auto halted = [&] { return (status() & status_halted) != 0; };
    return require(halted, 1s, "the controller does not halt");
}

void XhciDriver::set_up_memory() {
    for (const Buffer& each : {contexts_, device_context_, input_context_})
        std::ranges::fill(each.bytes, std::byte{0});
    for (std::size_t page = 0; page != scratchpads_.bytes.size() / 4096; ++page) {
        const std::uint64_t address = scratchpads_.iova.value() + 4096 * page;
        std::memcpy(scratchpad_array_.bytes.data() + 8 * page, &address, sizeof address);
    }
    const std::array<std::uint64_t, 2> contexts = {scratchpad_array_.iova.value(),
                                                   device_context_.iova.value()};
    std::memcpy(contexts_.bytes.data(), contexts.data(), sizeof contexts);
    // 6.5
    const std::array<std::uint64_t, 2> segment = {event_memory_.iova.value(), ring_depth};
    std::memcpy(segment_table_.bytes.data(), segment.data(), sizeof segment);
    events_.restart(event_memory_);
    commands_.restart(command_memory_);
    for (std::size_t i = 0; i != rings_.size(); ++i)
        rings_.at(i).restart(ring_memory_.at(i));
}

/// 4.2
Result<void> XhciDriver::start_controller() {
    MOAT_TRY(halt());
    registers_.write32(operational_ + op::command, command_reset);
    auto ready = [&] {
        return (registers_.read32(operational_ + op::command) & command_reset) == 0 &&
               (status() & status_not_ready) == 0;
    };
    MOAT_TRY(require(ready, 1s, "the controller does not reset"));
    set_up_memory();
    function().set_bus_master(true);
    constexpr std::uint32_t one_slot = 1;
    registers_.write32(operational_ + op::configure, one_slot);
    registers_.write_halves(operational_ + op::contexts, contexts_.iova.value());
    registers_.write_halves(operational_ + op::command_ring, commands_.position());
    registers_.write32(runtime_ + irq::table_size, 1);
    registers_.write_halves(runtime_ + irq::dequeue, events_.position());
    registers_.write_halves(runtime_ + irq::table, segment_table_.iova.value());
    registers_.write32(runtime_ + irq::moderation, 0);
    registers_.write32(runtime_ + irq::management, 2);
    registers_.write32(operational_ + op::command, command_run | command_interrupts);
    auto runs = [&] { return (status() & status_halted) == 0; };
    MOAT_TRY(require(runs, 1s, "the controller does not start"));
    return reset_port();
}

/// 4.3.1: a USB 2 port is enabled by its reset, a USB 3 port before it.
Result<void> XhciDriver::reset_port() {
    unsigned port = 0;
    const auto at = [&](unsigned index) {
        return operational_ + op::ports + index * op::port_bytes;
    };
    auto found = [&] {
        for (port = 0; port != ports_; ++port)
            if ((registers_.read32(at(port)) & port_connected) != 0)
                return true;
        return false;
    };
    MOAT_LET(const bool is_connected, wait_until(found, 1s));
    if (!is_connected)
        return fail(ErrorCode::unsupported, "a USB controller without a device", {"ports", ports_});
    registers_.write32(at(port), port_power | port_reset);
    auto enabled = [&] {
        constexpr std::uint32_t wanted = port_enabled | port_reset_changed;
        return (registers_.read32(at(port)) & wanted) == wanted;
    };
    MOAT_TRY(require(enabled, 1s, "the port of the USB device does not reset"));
    registers_.write32(at(port), port_power | port_reset_changed);
    return address_device(port + 1, registers_.read32(at(port)) >> 10 & 0xf);
}

std::span<std::uint32_t> XhciDriver::input_context(unsigned index) {
    auto* const words = reinterpret_cast<std::uint32_t*>(input_context_.bytes.data());
    return {words + std::size_t{index} * context_words_, context_words_};
}

/// 6.2.3
void XhciDriver::describe_endpoint(const Endpoint& endpoint, unsigned kind, const Ring& ring) {
    constexpr std::uint32_t three_errors = 3U << 1;
    const auto context = input_context(1 + endpoint.index);
    context[1] = three_errors | kind << 3 | endpoint.packet << 16;
    context[2] = static_cast<std::uint32_t>(ring.position());
    context[3] = static_cast<std::uint32_t>(ring.position() >> 32);
    context[4] = endpoint.index == control_endpoint ? 8 : 4096; // an average length
    input_context(0)[1] |= 1U << endpoint.index;
}

/// 4.3.2, 4.3.3, 4.3.4
Result<void> XhciDriver::address_device(unsigned port, unsigned speed) {
    MOAT_LET(const Outcome outcome, command({.control = control_of(enable_slot)}));
    slot_ = outcome.answered ? event_->control >> 24 : 0;
    if (!outcome.is_good() || slot_ != 1)
        return fail(ErrorCode::io, "the controller has no slot", {"code", outcome.code},
                    {"slot", slot_});
    constexpr unsigned high_speed = 3;
    const unsigned packet = speed > high_speed ? 512 : speed == high_speed ? 64 : 8;
    constexpr unsigned control_kind = 4;
    input_context(0)[1] = 1; // the slot
    input_context(1)[0] = speed << 20 | control_endpoint << 27;
    input_context(1)[1] = port << 16;
    describe_endpoint({control_endpoint, packet}, control_kind, rings_[0]);
    return require_command(
        {.parameter = input_context_.iova.value(), .control = control_of(xhci::address_device)},
        "the controller cannot address the USB device");
}

Result<void> XhciDriver::configure(const Endpoint& in, const Endpoint& out) {
    constexpr unsigned bulk_out = 2;
    constexpr unsigned bulk_in = 6;
    input_context(0)[1] = 1;
    auto& entries = input_context(1)[0];
    entries = (entries & ~(0x1fU << 27)) | std::max(in.index, out.index) << 27;
    describe_endpoint(in, bulk_in, rings_[1]);
    describe_endpoint(out, bulk_out, rings_[2]);
    return require_command(
        {.parameter = input_context_.iova.value(), .control = control_of(configure_endpoint)},
        "the controller rejects the device's endpoints");
}

Result<Outcome> XhciDriver::disable_slot() {
    return command({.control = control_of(disable_slot_command)});
}

Result<void> XhciDriver::require_command(Trb trb, const char* message) {
    MOAT_LET(const Outcome outcome, command(trb));
    return outcome.is_good() ? Result<void>{}
                             : fail(ErrorCode::io, message, {"code", outcome.code});
}

Result<Outcome> XhciDriver::command(Trb trb) {
    trb.control |= slot_ << 24;
    awaited_ = {commands_.append(trb).value()};
    return ring_and_wait(0, 0);
}

Result<Outcome> XhciDriver::ring_and_wait(unsigned doorbell, std::uint32_t target) {
    event_.reset();
    const Type wanted = doorbell == 0 ? command_completion : transfer_event;
    registers_.write32(doorbells_ + 4 * doorbell, target);
    auto completed = [&] {
        while (!event_) {
            const auto event = events_.take();
            if (!event)
                return false;
            if (type_of(*event) == wanted &&
                std::ranges::find(awaited_, event->parameter) != awaited_.end())
                event_ = event;
        }
        return true;
    };
    auto is_broken = [&] {
        return (status() & (status_halted | status_system_error | status_controller_error)) != 0;
    };
    MOAT_LET(const bool waited, wait_for_completion(0, completed, is_broken, 2s));
    constexpr std::uint64_t no_longer_busy = 1U << 3; // allows the next interrupt (5.5.2.3.3)
    registers_.write_halves(runtime_ + irq::dequeue, events_.position() | no_longer_busy);
    // QEMU 7.2 may never execute a TRB that is written while it still handles the one before, about
    // once in 20,000 operations. It answers this read afterwards.
    (void)status();
    return Outcome{waited, waited ? event_->status >> 24 : 0};
}

Ring& XhciDriver::ring_of(const Endpoint& endpoint) {
    return rings_.at(endpoint.index == control_endpoint ? 0 : endpoint.is_in() ? 1 : 2);
}

/// 4.11.2.2
Result<Outcome> XhciDriver::request(const Setup& setup, Iova data) {
    Trb first{.status = sizeof setup, .control = control_of(setup_stage) | immediate};
    std::memcpy(&first.parameter, &setup, sizeof setup);
    Trb last{.control = control_of(status_stage) | event_if_done};
    auto stages = data_trbs(data, ByteCount(setup.length), 64);
    if (stages.empty()) {
        last.control |= towards_host;
    } else {
        const bool reads = (setup.kind & 0x80) != 0;
        first.control |= (reads ? 3U : 2U) << 16;
        // The first TRB of a data stage has its own type, those that follow are normal.
        stages[0].control += control_of(data_stage) - control_of(normal);
        stages[0].control |= reads ? towards_host : 0;
        last.control |= reads ? 0 : towards_host;
    }
    rings_[0].append(first);
    for (const Trb& each : stages)
        rings_[0].append(each);
    awaited_ = {rings_[0].append(last).value()};
    return ring_and_wait(slot_, control_endpoint);
}

Result<Outcome> XhciDriver::transfer(const Endpoint& endpoint, Iova data, ByteCount length) {
    awaited_.clear();
    for (Trb each : data_trbs(data, length, endpoint.packet)) {
        each.control |= endpoint.is_in() ? event_if_short : 0;
        each.control |= (each.control & chain) == 0 ? event_if_done : 0;
        awaited_.push_back(ring_of(endpoint).append(each).value());
    }
    return ring_and_wait(slot_, endpoint.index);
}

/// One more TRB: the controller reads it to find that it is not valid.
ByteCount XhciDriver::ring_for(Iova data, ByteCount length) {
    return ByteCount(sizeof(Trb) * (data_trbs(data, length, 1).size() + 1));
}

/// 4.6.9, 4.6.10
Result<void> XhciDriver::move(const Endpoint& endpoint, std::uint64_t position) {
    MOAT_LET(const Outcome stopped,
             command({.control = control_of(stop_endpoint) | endpoint.index << 16}));
    constexpr unsigned is_stopped_already = 19;
    if (!stopped.is_good() && stopped.code != is_stopped_already)
        return fail(ErrorCode::io, "the endpoint does not stop", {"code", stopped.code});
    return require_command(
        {.parameter = position, .control = control_of(set_dequeue) | endpoint.index << 16},
        "the endpoint's ring cannot be moved");
}

Result<Outcome> XhciDriver::transfer_elsewhere(const Endpoint& endpoint, Iova data,
                                               ByteCount length, const Buffer& elsewhere) {
    if (elsewhere.bytes.size() < ring_for(data, length).value())
        return fail(ErrorCode::out_of_range, "the transfer ring does not fit its memory",
                    {"bytes", elsewhere.bytes.size()});
    Ring ring;
    ring.restart(elsewhere);
    MOAT_TRY(move(endpoint, ring.position()));
    std::swap(ring_of(endpoint), ring);
    MOAT_LET(const Outcome outcome, transfer(endpoint, data, length));
    std::swap(ring_of(endpoint), ring);
    if (outcome.answered)
        MOAT_TRY(move(endpoint, ring_of(endpoint).position()));
    return outcome;
}

} // namespace moat::audit::xhci
