// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serve/proxy.hpp"

#include "moat/core/text.hpp"

#include "serve/event_now.hpp"

#include <cerrno>
#include <chrono>
#include <poll.h>
#include <utility>

namespace moat::serve {

using namespace machine::vfio_user;
using machine::soft::Face;
using namespace std::chrono_literals;

Proxy::Proxy(Channel client, Channel server, const Reports& reports)
    : face_(machine::Bdf(0, 1, 0), shadow_),
      client_(std::move(client), reports, face_.info().address), server_(std::move(server)),
      reports_(reports),
      bus_(face_, reports.name, client_, reports.findings, reports.recorder, reports.tally) {
    bus_.attach(&space_);
    client_.leave_messages();
}

Result<void> Proxy::run(int stop) {
    for (;;) {
        const auto took = take_from_client();
        if (!took)
            return client_.channel().ended() ? Result<void>() : std::unexpected(took.error());
        MOAT_LET(auto message, server_.receive(0ms));
        const bool has_message = message.has_value();
        if (has_message)
            MOAT_TRY(from_server(*message));
        if (*took || has_message)
            continue;
        wait_for_any({client_.channel().descriptor(), server_.descriptor(), stop},
                     change_ ? server_.patience() : 1000ms);
        pollfd stopped = {.fd = stop, .events = POLLIN, .revents = 0};
        if (stop >= 0 && ::poll(&stopped, 1, 0) > 0)
            return {};
    }
}

/// A request after a change of the maps may depend on it, and QEMU awaits no reply in between.
Result<bool> Proxy::take_from_client() {
    MOAT_LET(auto message, change_ ? client_.receive(0ms) : client_.next(0ms));
    const bool received = message.has_value();
    if (received && message->header.is_reply()) {
        MOAT_TRY(answered(*message));
    } else if (received && change_) {
        MOAT_TRY(client_.hold(*std::move(message)));
    } else if (received) {
        MOAT_TRY(from_client(*std::move(message)));
    } else if (change_ && std::chrono::steady_clock::now() > change_->latest) {
        return fail(ErrorCode::busy, "the server does not answer a change of the maps",
                    {"address", change_->range.address}, {"bytes", change_->range.size});
    }
    return received;
}

void Proxy::begin(const Header& request, const DmaUnmap& range) {
    change_ = {.request = request,
               .range = range,
               .latest = std::chrono::steady_clock::now() + server_.patience()};
}

/// A failed map is undone, a confirmed unmap is done.
void Proxy::end_change(const Header& reply) {
    if (!change_ || reply.id != change_->request.id || reply.command != change_->request.command)
        return;
    if ((reply.command == Command::dma_map) == reply.failed())
        (void)client_.unmap(change_->range, space_, event_now());
    change_.reset();
}

/// The server is offered what the client offers, but for a socket that would pass the proxy by.
Result<void> Proxy::agree(const Message& version) {
    const auto offered = decode_version(version.body);
    if (!offered)
        return client_.refuse(version.header, EINVAL);
    Capabilities capabilities = *offered;
    capabilities.twin_socket = false;
    MOAT_TRY(server_.send(version.header, {encode_version(capabilities, Role::client)}));
    MOAT_LET(const auto reply, server_.receive(server_.patience()));
    if (!reply || !reply->header.is_reply() || reply->header.command != Command::version)
        return fail(ErrorCode::refused, "the server does not answer the version message");
    if (reply->header.failed())
        return client_.refuse(version.header, static_cast<int>(reply->header.error));
    MOAT_LET(Capabilities accepted, decode_version(reply->body));
    accepted.twin_socket = false;
    ++reports_.tally.opens;
    return client_.agree(version, accepted);
}

Result<void> Proxy::from_client(Message message) {
    const Header& header = message.header;
    if (header.command == Command::version)
        return agree(message);
    const auto request = decode_request(header.command, message.body);
    if (!request) // the server refuses it in its own way
        return pass(server_, message);
    if (const auto* const map = std::get_if<DmaMap>(&*request)) {
        const int file = message.descriptors.empty() ? -1 : message.descriptors.front().get();
        if (const int error = client_.map(*map, file, space_, event_now()); error != 0)
            return client_.refuse(header, error);
        message.descriptors.clear();
        if (header.wants_reply())
            begin(header, {.address = map->address, .size = map->size});
        ++reports_.tally.maps;
    } else if (const auto* const unmap = std::get_if<DmaUnmap>(&*request)) {
        if (header.wants_reply())
            begin(header, *unmap);
        else
            (void)client_.unmap(*unmap, space_, event_now());
    } else {
        follow(header.command, message.body);
    }
    return pass(server_, message);
}

/// Notes what a message does to the command register.
void Proxy::follow(Command command, std::span<const std::byte> body) {
    if (command == Command::reset)
        face_.reset();
    const auto where = taken_from<RegionAccess>(body);
    if (command == Command::region_write && where && where->region == Face::config_region)
        (void)face_.write(Face::config_region, where->offset, body.subspan(sizeof(RegionAccess)));
    if (command == Command::region_write || command == Command::write_multi)
        bus_.tell(event_now());
}

Result<void> Proxy::from_server(const Message& message) {
    const Header& header = message.header;
    if (!header.is_reply())
        return access(message);
    end_change(header);
    return pass(client_.channel(), message);
}

/// Performs a DMA message of the server if the client's maps permit it; what has no descriptor is
/// left to the client.
Result<void> Proxy::access(const Message& message) {
    const Header& header = message.header;
    if (header.command != Command::dma_read && header.command != Command::dma_write)
        return fail(ErrorCode::refused, "a command that a server cannot send",
                    {"command", static_cast<std::uint64_t>(header.command)});
    const auto dma = decode_dma(header.command, message.body);
    std::vector<std::byte> data;
    bool done = false;
    if (dma && header.command == Command::dma_read) {
        data.resize(dma->where.count);
        done = bus_.read(Iova(dma->where.address), data).value() == data.size();
    } else if (dma) {
        done = bus_.write(Iova(dma->where.address), dma->data).value() == dma->where.count;
    }
    if (client_.left_message() && done) {
        MOAT_LET(const std::uint16_t id, client_.pass_on(message));
        if (header.wants_reply())
            passed_on_.insert_or_assign(id, PassedOn{.id = header.id, .where = dma->where});
        return {};
    }
    if (!header.wants_reply())
        return {};
    if (!done)
        return server_.send(Dialogue::refuse(header, dma ? EFAULT : dma.error()));
    return server_.send(Dialogue::reply_to(header), {bytes_of(dma->where), data});
}

/// Passes the client's reply to a DMA message to the server, under the server's identity.
Result<void> Proxy::answered(const Message& reply) {
    const auto known = passed_on_.extract(reply.header.id);
    if (known.empty())
        return {};
    const PassedOn& request = known.mapped();
    if (reply.header.failed())
        reports_.findings.remark("dma-refused",
                                 "the client refused an access to " +
                                     std::to_string(request.where.count) + " bytes at " +
                                     hexadecimal(request.where.address) + ", inside its mapping",
                                 {.device = reports_.name});
    Header header = reply.header;
    header.id = request.id;
    return server_.send(header, {reply.body});
}

Result<void> Proxy::pass(Channel& to, const Message& message) {
    std::vector<int> descriptors;
    for (const auto& each : message.descriptors)
        descriptors.push_back(each.get());
    return to.send(message.header, {message.body}, descriptors);
}

} // namespace moat::serve
