// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_user/remote_device.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace moat::machine::vfio_user {

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr unsigned most_vectors_used = 64;
constexpr std::uint64_t most_region_bytes = std::uint64_t{1} << 48;

/// What a BAR of a region decodes. A server's region may have any size.
[[nodiscard]] std::uint64_t decoded_bytes(std::uint64_t size) {
    constexpr std::uint64_t least_memory_bar = 16;
    return std::bit_ceil(std::max(size, least_memory_bar));
}

[[nodiscard]] BarKind kind_of(std::uint32_t bar) {
    if ((bar & 1U) != 0)
        return BarKind::ports;
    return (bar >> 1U & 3U) == 2 ? BarKind::memory64 : BarKind::memory32;
}

} // namespace

Result<std::unique_ptr<RemoteDevice>> RemoteDevice::connect(const std::string& socket,
                                                            Channel::Patience patience) {
    MOAT_LET(auto channel, Channel::connect(socket, patience));
    return negotiate(std::move(channel));
}

Result<std::unique_ptr<RemoteDevice>> RemoteDevice::negotiate(Channel channel) {
    std::unique_ptr<RemoteDevice> device(new RemoteDevice(std::move(channel)));
    MOAT_TRY(device->agree());
    MOAT_TRY(device->learn());
    return device;
}

template <class T>
Result<T> RemoteDevice::keep(Result<T> result) {
    if (!result)
        failure_ = result.error();
    return result;
}

Result<void> RemoteDevice::agree() {
    MOAT_LET(auto reply, ask(Command::version, {encode_version(own_capabilities, Role::client)},
                             sizeof(Version)));
    MOAT_LET(server_, decode_version(reply.body));
    if (!server_.twin_socket)
        return {};
    if (server_.twin_index >= reply.descriptors.size())
        return fail(ErrorCode::mismatch, "the server names a twin socket that it did not pass",
                    {"index", server_.twin_index}, {"descriptors", reply.descriptors.size()});
    twin_.emplace(std::move(reply.descriptors[server_.twin_index]), main_.patience());
    return {};
}

template <class T>
Result<T> RemoteDevice::describe(Command command, unsigned index) {
    const T asked = {.index = index};
    MOAT_LET(const auto reply, ask(command, {bytes_of(asked)}, sizeof(T)));
    const T answer = *taken_from<T>(reply.body);
    if (answer.index != index)
        return keep(Result<T>(fail(ErrorCode::mismatch, "the server describes another index",
                                   {"asked", index}, {"answered", answer.index})));
    return answer;
}

Result<void> RemoteDevice::learn() {
    const DeviceInfo question;
    MOAT_LET(const auto reply, ask(Command::get_info, {bytes_of(question)}, sizeof(DeviceInfo)));
    device_ = *taken_from<DeviceInfo>(reply.body);
    if ((device_.flags & device_is_pci) == 0 || device_.regions <= config_region)
        return fail(ErrorCode::unsupported, "the server's device is no PCI function",
                    {"flags", device_.flags}, {"regions", device_.regions});
    for (unsigned index = 0; index != sizes_.size(); ++index) {
        MOAT_LET(const auto region, describe<RegionInfo>(Command::get_region_info, index));
        if (region.size > most_region_bytes)
            return fail(ErrorCode::mismatch, "the server's region has an impossible size",
                        {"region", index}, {"bytes", region.size});
        sizes_[index] = region.size;
    }
    if (sizes_[config_region] < pci::end_of_header)
        return fail(ErrorCode::mismatch, "the server's configuration space has no header",
                    {"bytes", sizes_[config_region]});
    const auto config = [&](unsigned offset) {
        return static_cast<std::uint32_t>(read(config_region, offset, Width::bits32));
    };
    const std::uint32_t identity = config(pci::vendor_id);
    info_.vendor = static_cast<std::uint16_t>(identity);
    info_.device = static_cast<std::uint16_t>(identity >> 16);
    info_.class_code = config(pci::class_revision) >> 8;
    for (unsigned index = 0; index != info_.bars.size(); ++index) {
        if (sizes_[index] == 0)
            continue;
        const std::uint32_t bar = config(pci::first_bar + 4 * index);
        info_.bars[index] = {.kind = kind_of(bar),
                             .prefetchable = (bar & 9U) == 8,
                             .size = ByteCount(decoded_bytes(sizes_[index]))};
        if (info_.bars[index].kind == BarKind::memory64)
            ++index;
    }
    MOAT_TRY(learn_interrupts(device_.interrupts));
    return failure_ ? Result<void>(std::unexpected(*failure_)) : Result<void>();
}

/// MSI-X if it has that, else MSI.
Result<void> RemoteDevice::learn_interrupts(unsigned kinds) {
    for (const unsigned kind : {2U, 1U}) {
        if (kind >= kinds)
            continue;
        MOAT_LET(const auto interrupts, describe<IrqInfo>(Command::get_irq_info, kind));
        interrupt_kind_ = kind;
        vectors_ = std::min(interrupts.count, most_vectors_used);
        if (vectors_ != 0)
            break;
    }
    return {};
}

Result<Survey> RemoteDevice::survey() {
    Survey survey{.connection = server_, .device = device_};
    const auto ask_all = [&](Command command, unsigned count, auto& all) -> Result<void> {
        using Info = std::remove_reference_t<decltype(all)>::value_type;
        for (unsigned index = 0; index != std::min(count, most_surveyed); ++index) {
            const auto info = describe<Info>(command, index);
            if (info)
                all.push_back(*info);
            else if (failure_)
                return std::unexpected(*failure_);
        }
        return {};
    };
    MOAT_TRY(ask_all(Command::get_region_info, device_.regions, survey.regions));
    MOAT_TRY(ask_all(Command::get_irq_info, device_.interrupts, survey.interrupts));
    const std::uint64_t subsystem = read(config_region, pci::subsystem, Width::bits32);
    survey.subsystem_vendor = static_cast<std::uint16_t>(subsystem);
    survey.subsystem_device = static_cast<std::uint16_t>(subsystem >> 16);
    survey.revision =
        static_cast<std::uint8_t>(read(config_region, pci::class_revision, Width::bits32));
    if (failure_)
        return std::unexpected(*failure_);
    return survey;
}

std::uint64_t RemoteDevice::read(unsigned region, std::uint64_t offset, Width width) {
    const auto bytes = static_cast<std::uint32_t>(width);
    const RegionAccess where = {.offset = offset, .region = region, .count = bytes};
    if (offset >= sizes_[region] || bytes > sizes_[region] - offset)
        return all_ones(width);
    const auto reply = ask(Command::region_read, {bytes_of(where)}, sizeof(RegionAccess) + bytes);
    if (!reply)
        return all_ones(width);
    std::uint64_t value = 0;
    std::memcpy(&value, reply->body.data() + sizeof(RegionAccess), bytes);
    return value;
}

/// Writes to BARs are posted. Now and then one is not, so that the server keeps up.
void RemoteDevice::write(unsigned region, std::uint64_t offset, Width width, std::uint64_t value) {
    const auto bytes = static_cast<std::uint32_t>(width);
    const RegionAccess where = {.offset = offset, .region = region, .count = bytes};
    if (failure_ || offset >= sizes_[region] || bytes > sizes_[region] - offset)
        return;
    const auto data = bytes_of(value).first(bytes);
    if (region == config_region || ++posted_ == most_posted)
        (void)ask(Command::region_write, {bytes_of(where), data}, 0);
    else
        (void)keep(
            main_.send(dialogue_.ask(Command::region_write, no_reply), {bytes_of(where), data}));
}

bool RemoteDevice::step(soft::BusMaster& bus) {
    bus_ = &bus;
    return serve_one(0ms).value_or(false);
}

void RemoteDevice::serve(std::chrono::milliseconds longest) {
    (void)serve_one(longest);
}

void RemoteDevice::reset() {
    (void)ask(Command::reset, {}, 0);
}

Result<void> RemoteDevice::map(const DmaMap& map, int file) {
    const std::span<const int> files(&file, file >= 0 ? 1 : 0);
    MOAT_TRY(ask(Command::dma_map, {bytes_of(map)}, 0, files));
    return {};
}

Result<void> RemoteDevice::unmap(const DmaUnmap& unmap) {
    MOAT_TRY(ask(Command::dma_unmap, {bytes_of(unmap)}, 0));
    return {};
}

Result<void> RemoteDevice::set_interrupts(std::span<const int> eventfds) {
    SetIrqs what = {.flags = irq_trigger | (eventfds.empty() ? irq_no_data : irq_eventfds),
                    .index = interrupt_kind_};
    const std::size_t most = std::max<std::uint64_t>(server_.descriptors, 1);
    do {
        const auto here = eventfds.first(std::min(eventfds.size(), most));
        what.count = static_cast<std::uint32_t>(here.size());
        what.argument_size =
            static_cast<std::uint32_t>(sizeof what + here.size() * sizeof(std::int32_t));
        MOAT_TRY(ask(Command::set_irqs, {bytes_of(what)}, 0, here));
        what.start += what.count;
        eventfds = eventfds.subspan(here.size());
    } while (!eventfds.empty());
    return {};
}

Result<Message> RemoteDevice::ask(Command command, Channel::Pieces pieces, std::size_t least,
                                  std::span<const int> descriptors) {
    if (failure_)
        return std::unexpected(*failure_);
    MOAT_TRY(keep(main_.send(dialogue_.ask(command), pieces, descriptors)));
    posted_ = 0;
    ++round_trips_;
    MOAT_LET(auto reply, keep(await_reply(command)));
    const auto number = static_cast<std::uint64_t>(command);
    if (reply.header.failed())
        return fail(ErrorCode::refused, "the server refuses a request", {"command", number},
                    {"errno", reply.header.error});
    if (reply.body.size() < least)
        return keep(
            Result<Message>(fail(ErrorCode::mismatch, "a reply is too short", {"command", number},
                                 {"bytes", reply.body.size()}, {"least", least})));
    return reply;
}

Result<Message> RemoteDevice::await_reply(Command command) {
    const auto deadline = Clock::now() + main_.patience();
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
        if (left <= 0ms)
            return fail(ErrorCode::busy, "the server does not answer",
                        {"command", static_cast<std::uint64_t>(command)},
                        {"milliseconds", static_cast<std::uint64_t>(main_.patience().count())});
        MOAT_LET(auto message, main_.receive(twin_ ? 0ms : left));
        if (message) {
            MOAT_TRY(dialogue_.arrived(message->header));
            if (message->header.is_reply())
                return *std::move(message);
            MOAT_TRY(perform(main_, *message));
        }
        if (!twin_)
            continue;
        MOAT_LET(const auto request, twin_->receive(0ms));
        if (request)
            MOAT_TRY(perform(*twin_, *request));
        else if (!message)
            wait_for_any({main_.descriptor(), twin_->descriptor()}, left);
    }
}

/// Return: whether a message was served.
Result<bool> RemoteDevice::serve_one(std::chrono::milliseconds longest) {
    if (failure_)
        return std::unexpected(*failure_);
    const auto served = [&](Channel& channel, std::chrono::milliseconds wait) -> Result<bool> {
        MOAT_LET(const auto message, channel.receive(wait));
        if (!message)
            return false;
        MOAT_TRY(dialogue_.arrived(message->header));
        MOAT_TRY(perform(channel, *message));
        return true;
    };
    Result<bool> result = served(main_, twin_ ? 0ms : longest);
    if (twin_ && result && !*result) {
        result = served(*twin_, 0ms);
        if (result && !*result && longest != 0ms) {
            wait_for_any({main_.descriptor(), twin_->descriptor()}, longest);
            result = served(*twin_, 0ms);
        }
    }
    return keep(std::move(result));
}

Result<void> RemoteDevice::perform(Channel& channel, const Message& request) {
    const Header& header = request.header;
    if (header.is_reply())
        return fail(ErrorCode::refused, "a reply on the twin socket", {"id", header.id});
    const auto dma = decode_dma(header.command, request.body);
    std::vector<std::byte> data;
    bool done = false;
    if (dma && bus_ != nullptr) {
        const Iova at(dma->where.address);
        if (header.command == Command::dma_read) {
            data.resize(dma->where.count);
            done = bus_->read(at, data).value() == dma->where.count;
        } else {
            done = bus_->write(at, dma->data).value() == dma->where.count;
        }
    }
    if (!header.wants_reply())
        return {};
    if (!dma)
        return channel.send(Dialogue::refuse(header, dma.error()));
    if (!done)
        return channel.send(Dialogue::refuse(header, EFAULT));
    return channel.send(Dialogue::reply_to(header), {bytes_of(dma->where), data});
}

} // namespace moat::machine::vfio_user
