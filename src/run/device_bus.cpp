// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/device_bus.hpp"

#include "moat/core/text.hpp"

#include "run/clock.hpp"

#include <algorithm>
#include <chrono>
#include <poll.h>
#include <string.h>
#include <unistd.h>

namespace moat::run {

using machine::soft::InterruptKind;

namespace {

constexpr std::array most_specific_first = {InterruptKind::msix, InterruptKind::msi,
                                            InterruptKind::intx};

void close_if_open(int descriptor) {
    if (descriptor >= 0)
        ::close(descriptor);
}

} // namespace

/// Reads what the program mapped, and reports nothing.
class DeviceBus::ReadingBus final : public machine::soft::BusMaster {
  public:
    explicit ReadingBus(const DeviceBus& bus) : bus_(bus) {}

    virtual ~ReadingBus() = default;

    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        const auto piece = bus_.space_->find(from, fault::Access::read);
        if (!piece || piece->bytes < into.size())
            return ByteCount();
        return ByteCount(bus_.client_.read(piece->memory, into));
    }

    [[nodiscard]] ByteCount write(Iova /*to*/, std::span<const std::byte> /*from*/) override {
        return ByteCount();
    }

    void interrupt(unsigned /*vector*/) override {}

  private:
    const DeviceBus& bus_;
};

bool DeviceBus::Vector::is_untaken() const {
    pollfd raised = {.fd = eventfd, .events = POLLIN, .revents = 0};
    return sent != 0 && !taken && ::poll(&raised, 1, 0) == 1;
}

DeviceBus::DeviceBus(const machine::soft::Face& face, std::string name, Client& client,
                     Findings& findings, Recorder& recorder, Tally& tally)
    : face_(face), name_(std::move(name)), client_(client), findings_(findings),
      recorder_(recorder), tally_(tally) {
    for (std::size_t kind = 0; kind != vectors_.size(); ++kind)
        vectors_[kind].resize(face.interrupts(static_cast<InterruptKind>(kind)));
}

DeviceBus::~DeviceBus() {
    for (const auto& kind : vectors_)
        for (const Vector& each : kind)
            close_if_open(each.eventfd);
}

void DeviceBus::tell(const fault::Event& event) {
    told_ = event;
    const std::size_t frames = std::min(event.stack.size(), told_stack_.size());
    std::ranges::copy(event.stack.first(frames), told_stack_.begin());
    told_.stack = std::span(told_stack_).first(frames);
}

void DeviceBus::set_interrupt(InterruptKind kind, unsigned vector, int descriptor) {
    auto& of_kind = vectors_[static_cast<std::size_t>(kind)];
    if (vector >= of_kind.size())
        return close_if_open(descriptor);
    const Vector old = std::exchange(of_kind[vector], Vector{.eventfd = descriptor});
    tally_.untaken += old.is_untaken() ? 1 : 0;
    close_if_open(old.eventfd);
}

void DeviceBus::signal(InterruptKind kind, unsigned vector) {
    auto& of_kind = vectors_[static_cast<std::size_t>(kind)];
    if (vector >= of_kind.size() || of_kind[vector].eventfd < 0)
        return;
    Vector& to = of_kind[vector];
    to.taken = to.taken || (to.sent != 0 && !to.is_untaken());
    ++to.sent;
    ++tally_.interrupts;
    const std::uint64_t one = 1;
    pollfd room = {to.eventfd, POLLOUT, 0};
    if (::poll(&room, 1, 0) == 1) // a full counter is raised already, and may block
        (void)!::write(to.eventfd, &one, sizeof one);
}

void DeviceBus::count_untaken() {
    for (auto& kind : vectors_)
        for (Vector& each : kind) {
            tally_.untaken += each.is_untaken() ? 1 : 0;
            each.sent = 0;
        }
}

bool DeviceBus::is_armed(InterruptKind kind) const {
    return std::ranges::any_of(vectors_[static_cast<std::size_t>(kind)],
                               [](const Vector& each) { return each.eventfd >= 0; });
}

void DeviceBus::note_unmap(IovaRange range, const fault::Event& unmapped) {
    ReadingBus bus(*this);
    if (!face_.uses(range, bus))
        return;
    Circumstances known = circumstances();
    known.unmapped = unmapped;
    findings_.remark("unmap-in-flight",
                     "the program unmapped memory at " + hexadecimal(range.start().value()) + " (" +
                         std::to_string(range.size().value()) +
                         " bytes) that an uncompleted command uses",
                     known);
}

void DeviceBus::interrupt(unsigned vector) {
    for (const InterruptKind kind : most_specific_first) {
        if (!is_armed(kind))
            continue;
        if (kind != InterruptKind::intx)
            return signal(kind, vector);
        if (!std::exchange(intx_masked_, true)) // VFIO masks it until the program unmasks it
            signal(kind, 0);
        return;
    }
}

ByteCount DeviceBus::read(Iova from, std::span<std::byte> into) {
    ++tally_.device_reads;
    const auto copy = [&](std::uint64_t memory, std::uint64_t offset, std::uint64_t bytes) {
        return client_.read(memory, into.subspan(offset, bytes));
    };
    return transfer(fault::Access::read, from, into.size(), copy);
}

ByteCount DeviceBus::write(Iova to, std::span<const std::byte> from) {
    ++tally_.device_writes;
    const auto copy = [&](std::uint64_t memory, std::uint64_t offset, std::uint64_t bytes) {
        return client_.write(memory, from.subspan(offset, bytes));
    };
    return transfer(fault::Access::write, to, from.size(), copy);
}

ByteCount DeviceBus::transfer(fault::Access access, Iova at, std::uint64_t bytes, Copy copy) {
    if (bytes == 0)
        return ByteCount();
    bytes = std::min(bytes - 1, ~at.value()) + 1;
    if (face_.disabled())
        findings_.remark("dma-while-disabled",
                         "the device accessed memory at " + hexadecimal(at.value()) + " (" +
                             std::string(name(access)) + ") after the driver disabled it",
                         circumstances());
    else if (!face_.bus_master())
        findings_.remark("dma-before-bus-master",
                         "the device was told to " + std::string(name(access)) + " memory at " +
                             hexadecimal(at.value()) +
                             ", but bit 2 of its command register, bus master, is off",
                         circumstances());
    if (!face_.bus_master())
        return ByteCount();
    std::uint64_t done = 0;
    while (done != bytes) {
        const Iova here(at.value() + done);
        const auto piece = space_ == nullptr ? std::nullopt : space_->find(here, access);
        if (!piece) {
            refuse(access, at, bytes);
            break;
        }
        const std::uint64_t wanted = std::min(piece->bytes, bytes - done);
        const std::size_t moved = copy(piece->memory, done, wanted);
        done += moved;
        if (moved != wanted) {
            if (client_.refused())
                findings_.remark("dma-refused",
                                 "the client refused to " + std::string(name(access)) + ' ' +
                                     std::to_string(wanted) + " bytes at " +
                                     hexadecimal(here.value()) + ", inside its mapping",
                                 circumstances());
            else
                findings_.remark("dma-memory-gone",
                                 "the mapping at " + hexadecimal(here.value()) +
                                     " lasts, but the program has no memory at " +
                                     hexadecimal(piece->memory + moved) + " any more",
                                 circumstances());
            break;
        }
    }
    return ByteCount(done);
}

void DeviceBus::refuse(fault::Access access, Iova at, std::uint64_t bytes) {
    const auto source =
        fault::Source::requester(face_.info().address.requester(), face_.info().address.segment());
    const IovaRange where(at, ByteCount(bytes));
    if (space_ == nullptr) {
        const fault::Record record =
            exact_record(source, access, where, fault::Reason::not_attached);
        return findings_.stray(
            fault::diagnose(fault::SortedMappings({}), fault::NoHistory(), record),
            circumstances());
    }
    fault::Record record = exact_record(source, access, where, fault::Reason::not_present);
    record.time_ns = now_ns();
    recorder_.refused(machine::to_string(face_.info().address), record);
    const fault::Diagnosis diagnosis = space_->diagnose(record);
    Circumstances known = circumstances();
    if (const MapCall* const failed = space_->failed_at(at))
        known.notes.push_back(
            "the program tried to map " + hexadecimal(failed->map.range.start().value()) + " (" +
            std::to_string(failed->map.range.size().value()) + " bytes); that failed (" +
            ::strerrordesc_np(failed->error) + "), and it used the address all the same");
    findings_.stray(diagnosis, known);
}

void DeviceBus::remark(const machine::soft::Remark& remark) {
    Circumstances known = circumstances();
    known.notes.push_back("queue " + std::to_string(remark.queue) + ", value " +
                          hexadecimal(remark.value));
    findings_.remark(name(remark.mistake), text(remark.mistake), known);
}

Circumstances DeviceBus::circumstances() const {
    return {.device = name_, .told = told_};
}

} // namespace moat::run
