// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serve/conversation.hpp"

#include "serve/event_now.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <poll.h>
#include <utility>

namespace moat::serve {

using namespace machine::vfio_user;
using machine::soft::Face;
using machine::soft::InterruptKind;

namespace {

using namespace std::chrono_literals;

/// How long an idle device sleeps before it looks for work that became due.
constexpr auto idle_time = 1ms;

} // namespace

/// Performs a request and replies: one overload a kind.
class Conversation::Answers {
  public:
    Answers(Conversation& of, const Message& message)
        : of_(of), face_(of.stage_.face), message_(message) {}

    [[nodiscard]] Result<void> operator()(const DmaMap& map) const {
        if (message_.descriptors.size() > 1)
            return refuse(EINVAL);
        const int file = message_.descriptors.empty() ? -1 : message_.descriptors.front().get();
        const int error = of_.client_.map(map, file, of_.space_, event_now());
        of_.stage_.reports.tally.maps += error == 0 ? 1 : 0;
        return error == 0 ? reply({}) : refuse(error);
    }

    [[nodiscard]] Result<void> operator()(const DmaUnmap& unmap) const {
        const int error = of_.client_.unmap(unmap, of_.space_, event_now());
        return error == 0 ? reply({bytes_of(unmap)}) : refuse(error);
    }

    [[nodiscard]] Result<void> operator()(GetInfo /*nothing*/) const {
        const DeviceInfo info = {.flags = device_resets | device_is_pci,
                                 .regions = Face::region_count,
                                 .interrupts = Face::interrupt_kinds};
        return reply({bytes_of(info)});
    }

    [[nodiscard]] Result<void> operator()(const RegionInfo& asked) const {
        if (asked.index >= Face::region_count)
            return refuse(EINVAL);
        const Face::Region region = face_.region(asked.index);
        const RegionInfo info = {.flags = (region.readable ? region_readable : 0U) |
                                          (region.writable ? region_writable : 0U),
                                 .index = asked.index,
                                 .size = region.size.value()};
        return reply({bytes_of(info)});
    }

    [[nodiscard]] Result<void> operator()(const IrqInfo& asked) const {
        if (asked.index >= Face::interrupt_kinds)
            return refuse(EINVAL);
        const auto kind = static_cast<InterruptKind>(asked.index);
        const IrqInfo info = {
            .flags = interrupt_eventfd |
                     (kind == InterruptKind::intx ? interrupt_maskable : interrupt_no_resize),
            .index = asked.index,
            .count = face_.interrupts(kind)};
        return reply({bytes_of(info)});
    }

    [[nodiscard]] Result<void> operator()(const SetIrqsRequest& request) const {
        const SetIrqs& what = request.what;
        if (what.index >= Face::interrupt_kinds)
            return refuse(EINVAL);
        const auto kind = static_cast<InterruptKind>(what.index);
        const unsigned all = face_.interrupts(kind);
        const bool passes = (what.flags & irq_eventfds) != 0;
        if (what.start > all || what.count > all - what.start ||
            (passes && message_.descriptors.size() > what.count))
            return refuse(EINVAL);
        if ((what.flags & irq_trigger) == 0)
            of_.bus_.mask((what.flags & irq_mask) != 0);
        else if (passes)
            connect(kind, what);
        else if (what.count == 0)
            for (unsigned vector = 0; vector != all; ++vector)
                of_.bus_.set_interrupt(kind, vector, -1);
        else
            for (unsigned index = 0; index != what.count; ++index)
                if (request.bools.empty() || request.bools[index] != std::byte{0})
                    of_.bus_.signal(kind, what.start + index);
        if (kind == InterruptKind::msix && (what.flags & irq_trigger) != 0)
            face_.show_msix_enabled(what.count != 0);
        return reply({});
    }

    [[nodiscard]] Result<void> operator()(const RegionRead& read) const {
        ++of_.stage_.reports.tally.register_accesses;
        std::vector<std::byte> data(read.where.count);
        if (!has(read.where) || !face_.read(read.where.region, read.where.offset, data))
            return refuse(EINVAL);
        return reply({bytes_of(read.where), data});
    }

    [[nodiscard]] Result<void> operator()(const RegionWrite& write) const {
        if (!put(write.where, write.data))
            return refuse(EINVAL);
        return reply({bytes_of(write.where)});
    }

    [[nodiscard]] Result<void> operator()(const WriteMulti& multi) const {
        std::uint64_t done = 0;
        for (const MultiWrite& each : multi.writes) {
            if (!put(each.where, std::span(each.data).first(each.where.count)))
                return refuse(EINVAL);
            ++done;
        }
        return reply({bytes_of(done)});
    }

    [[nodiscard]] Result<void> operator()(Reset /*nothing*/) const {
        face_.reset();
        return reply({});
    }

    [[nodiscard]] Result<void> refuse(int error) const {
        return of_.client_.refuse(message_.header, error);
    }

  private:
    [[nodiscard]] Result<void> reply(Channel::Pieces pieces) const {
        return of_.client_.reply(message_.header, pieces);
    }

    [[nodiscard]] static bool has(const RegionAccess& where) {
        return where.region < Face::region_count;
    }

    [[nodiscard]] bool put(const RegionAccess& where, std::span<const std::byte> data) const {
        ++of_.stage_.reports.tally.register_accesses;
        of_.bus_.tell(event_now());
        return has(where) && face_.write(where.region, where.offset, data);
    }

    /// Vectors from `start` on get the descriptors; those without one are disabled.
    void connect(InterruptKind kind, const SetIrqs& what) const {
        for (unsigned index = 0; index != what.count; ++index) {
            const int own = index < message_.descriptors.size()
                                ? ::fcntl(message_.descriptors[index].get(), F_DUPFD_CLOEXEC, 3)
                                : -1;
            if (own >= 0) // a full counter, or what is no eventfd, must not stop the device
                (void)::fcntl(own, F_SETFL, O_RDWR | O_NONBLOCK);
            of_.bus_.set_interrupt(kind, what.start + index, own);
        }
    }

    Conversation& of_;
    Face& face_;
    const Message& message_;
};

Conversation::Conversation(const Stage& stage, Channel channel)
    : stage_(stage), client_(std::move(channel), stage.reports, stage.face.info().address),
      bus_(stage.face, stage.reports.name, client_, stage.reports.findings, stage.reports.recorder,
           stage.reports.tally) {
    bus_.attach(&space_);
    client_.serve_meanwhile([this](const Message& message, ClientLink::Order order) {
        return handle_meanwhile(message, order);
    });
}

ByteCount Conversation::UncheckedBus::read(Iova from, std::span<std::byte> into) {
    ++of_.stage_.reports.tally.device_reads;
    return ByteCount(of_.stage_.face.bus_master() ? of_.client_.read(from.value(), into) : 0);
}

ByteCount Conversation::UncheckedBus::write(Iova to, std::span<const std::byte> from) {
    ++of_.stage_.reports.tally.device_writes;
    return ByteCount(of_.stage_.face.bus_master() ? of_.client_.write(to.value(), from) : 0);
}

void Conversation::UncheckedBus::interrupt(unsigned vector) {
    of_.bus_.interrupt(vector);
}

Conversation::~Conversation() {
    stage_.face.reset();
    stage_.face.show_msix_enabled(false);
}

/// A device in the middle of a DMA access bears changes of the maps at any time, and what does not
/// reach its model unless it would overtake another request.
Result<bool> Conversation::handle_meanwhile(const Message& message, ClientLink::Order order) {
    const Command command = message.header.command;
    const bool changes_maps = command == Command::dma_map || command == Command::dma_unmap;
    const auto where = taken_from<RegionAccess>(message.body);
    const bool acts =
        command == Command::reset || command == Command::write_multi ||
        (command == Command::region_write && where && where->region != Face::config_region);
    const bool would_overtake = order == ClientLink::Order::kept && client_.has_waiting();
    if (!changes_maps && (acts || would_overtake))
        return false;
    MOAT_TRY(handle(message));
    return true;
}

Result<void> Conversation::handle(const Message& message) {
    if (message.header.command == Command::version) {
        ++stage_.reports.tally.opens;
        return client_.agree(message, stage_.offered);
    }
    const auto request = decode_request(message.header.command, message.body);
    if (!request)
        return client_.refuse(message.header, request.error());
    return std::visit(Answers(*this, message), *request);
}

Result<void> Conversation::run(int stop) {
    machine::soft::BusMaster& bus =
        stage_.unchecked ? static_cast<machine::soft::BusMaster&>(unchecked_bus_) : bus_;
    bool has_work = false;
    for (;;) {
        auto message = client_.next(has_work ? 0ms : idle_time);
        if (!message)
            return client_.channel().ended() ? Result<void>() : std::unexpected(message.error());
        const bool is_idle = !*message;
        if (!is_idle)
            MOAT_TRY(handle(**message));
        has_work = stage_.face.step(bus) || client_.has_waiting();
        if (client_.failure())
            return std::unexpected(*client_.failure());
        pollfd stopped = {.fd = stop, .events = POLLIN, .revents = 0};
        if (is_idle && stop >= 0 && ::poll(&stopped, 1, 0) > 0)
            return {};
    }
}

} // namespace moat::serve
