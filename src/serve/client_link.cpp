// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serve/client_link.hpp"

#include "serve/event_now.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <sys/uio.h>
#include <unistd.h>

namespace moat::serve {

using namespace machine::vfio_user;

namespace {

/// Copies between two places of this process; a page that is gone ends it, without a signal.
[[nodiscard]] std::size_t copy_safely(std::byte* ours, std::byte* theirs, std::size_t bytes,
                                      decltype(&::process_vm_readv) copy) {
    std::size_t done = 0;
    while (done != bytes) {
        const iovec local = {ours + done, bytes - done};
        const iovec remote = {theirs + done, bytes - done};
        const ssize_t moved = copy(::getpid(), &local, 1, &remote, 1, 0);
        if (moved <= 0)
            break;
        done += static_cast<std::size_t>(moved);
    }
    return done;
}

[[nodiscard]] fault::Allows allows_of(std::uint32_t flags) {
    const bool reads = (flags & map_readable) != 0;
    const bool writes = (flags & map_writable) != 0;
    if (reads && writes)
        return fault::Allows::read_write;
    return reads ? fault::Allows::read : fault::Allows::write;
}

} // namespace

ClientLink::ClientLink(Channel channel, const Reports& reports, machine::Bdf device)
    : main_(std::move(channel)), reports_(reports), device_(machine::to_string(device)) {
    reports_.recorder.device(device_, reports_.name, device.requester());
}

ClientLink::~ClientLink() {
    reports_.recorder.removed(device_, event_now());
    reports_.recorder.flush();
}

Result<std::optional<Message>> ClientLink::next(std::chrono::milliseconds longest) {
    if (failure_)
        return std::unexpected(*failure_);
    if (!waiting_.empty()) {
        std::optional<Message> message(std::move(waiting_.front()));
        waiting_.pop_front();
        waiting_bytes_ -= sizeof(Message) + message->body.size();
        return message;
    }
    return receive(longest);
}

Result<std::optional<Message>> ClientLink::receive(std::chrono::milliseconds longest) {
    MOAT_LET(auto message, main_.receive(longest));
    if (message)
        MOAT_TRY(dialogue_.arrived(message->header));
    return message;
}

Result<void> ClientLink::hold(Message request) {
    waiting_bytes_ += sizeof(Message) + request.body.size();
    waiting_.push_back(std::move(request));
    if (waiting_bytes_ > most_waiting_bytes)
        return fail(ErrorCode::limit, "the client sends requests and answers none",
                    {"waiting", waiting_.size()});
    return {};
}

Result<std::uint16_t> ClientLink::pass_on(const Message& message) {
    const Header header = dialogue_.ask(message.header.command, message.header.flags & no_reply);
    MOAT_TRY(main_.send(header, {message.body}));
    return header.id;
}

Result<void> ClientLink::reply(const Header& request, Channel::Pieces pieces,
                               std::span<const int> descriptors) {
    if (!request.wants_reply())
        return {};
    return main_.send(Dialogue::reply_to(request), pieces, descriptors);
}

Result<void> ClientLink::refuse(const Header& request, int error) {
    if (!request.wants_reply())
        return {};
    return main_.send(Dialogue::refuse(request, error));
}

Result<void> ClientLink::agree(const Message& version, const Capabilities& offered) {
    const auto theirs = decode_version(version.body);
    if (!theirs) {
        (void)refuse(version.header, EINVAL);
        return std::unexpected(theirs.error());
    }
    client_ = *theirs;
    Capabilities own = offered;
    own.minor = std::min(own.minor, client_.minor);
    own.twin_socket = own.twin_socket && client_.twin_socket && client_.descriptors != 0;
    if (!own.twin_socket)
        return reply(version.header, {encode_version(own, Role::server)});
    MOAT_LET(auto ends, Channel::pair(main_.patience()));
    twin_.emplace(std::move(ends.first));
    const std::array<int, 1> passed = {ends.second.get()};
    return reply(version.header, {encode_version(own, Role::server)}, passed);
}

int ClientLink::map(const DmaMap& map, int file, run::AddressSpace& space,
                    const fault::Event& event) {
    const std::uint64_t last = map.address + (map.size - 1);
    const auto above = regions_.upper_bound(last);
    if (above != regions_.begin()) {
        const auto& [start, below] = *std::prev(above);
        if (start + (below.size - 1) >= map.address)
            return EEXIST;
    }
    if (regions_.size() == most_maps)
        return ENOSPC;
    Region region{.size = map.size};
    if (file >= 0) {
        auto memory = platform::Mapping::create(
            file, ByteCount(map.size),
            {.offset = map.offset, .writable = (map.flags & map_writable) != 0});
        if (!memory)
            return memory.error().code() == ErrorCode::no_memory ? ENOMEM : EINVAL;
        region.memory.emplace(*std::move(memory));
    }
    regions_.emplace(map.address, std::move(region));
    const IovaRange range(Iova(map.address), ByteCount(map.size));
    const fault::Allows allows = allows_of(map.flags);
    space.map({.map = {.range = range, .memory = map.address, .allows = allows}, .event = event});
    reports_.recorder.map(device_, range, allows, event);
    return 0;
}

/// Whole mappings only, or nothing, as Linux's type1 version 2.
int ClientLink::unmap(const DmaUnmap& unmap, run::AddressSpace& space, const fault::Event& event) {
    const bool all = unmap.flags == unmap_all;
    const std::uint64_t last = all ? ~std::uint64_t{0} : unmap.address + (unmap.size - 1);
    const auto begin = regions_.lower_bound(unmap.address);
    const auto end = regions_.upper_bound(last);
    const auto last_of = [](const auto& region) {
        return region->first + (region->second.size - 1);
    };
    if (begin != regions_.begin() && last_of(std::prev(begin)) >= unmap.address)
        return EINVAL;
    if (begin == end)
        return 0;
    if (last_of(std::prev(end)) > last)
        return EINVAL;
    for (auto each = begin; each != end; ++each) {
        const IovaRange range(Iova(each->first), ByteCount(each->second.size));
        space.unmap(range.start(), event);
        reports_.recorder.unmap(device_, range, event);
    }
    regions_.erase(begin, end);
    return 0;
}

std::span<std::byte> ClientLink::mapped(std::uint64_t address, std::size_t bytes) const {
    const auto above = regions_.upper_bound(address);
    if (above == regions_.begin())
        return {};
    const auto& [start, region] = *std::prev(above);
    const std::uint64_t offset = address - start;
    if (!region.memory || offset >= region.size || bytes > region.size - offset)
        return {};
    return region.memory->bytes().subspan(offset, bytes);
}

std::size_t ClientLink::read(std::uint64_t address, std::span<std::byte> into) {
    refused_ = false;
    if (const auto memory = mapped(address, into.size()); !memory.empty())
        return copy_safely(into.data(), memory.data(), into.size(), &::process_vm_readv);
    std::ranges::fill(into, std::byte{0});
    if (leaves_messages_) {
        left_message_ = true;
        return into.size();
    }
    const auto piece = [&](DmaAccess where, std::size_t at) -> Result<bool> {
        MOAT_LET(const auto reply, ask(Command::dma_read, where, {}));
        if (!reply)
            return false;
        if (reply->body.size() != sizeof(DmaAccess) + where.count)
            return fail(ErrorCode::mismatch, "a DMA reply has the wrong size",
                        {"bytes", reply->body.size()}, {"asked", where.count});
        std::memcpy(into.data() + at, reply->body.data() + sizeof(DmaAccess), where.count);
        return true;
    };
    return ask_in_pieces(address, into.size(), piece);
}

std::size_t ClientLink::write(std::uint64_t address, std::span<const std::byte> from) {
    refused_ = false;
    if (const auto memory = mapped(address, from.size()); !memory.empty())
        return copy_safely(const_cast<std::byte*>(from.data()), memory.data(), from.size(),
                           &::process_vm_writev);
    if (leaves_messages_) {
        left_message_ = true;
        return from.size();
    }
    const auto piece = [&](DmaAccess where, std::size_t at) -> Result<bool> {
        // QEMU's reply to a write is the header alone.
        MOAT_LET(const auto reply, ask(Command::dma_write, where, from.subspan(at, where.count)));
        return reply.has_value();
    };
    return ask_in_pieces(address, from.size(), piece);
}

/// Calls piece(where, index of its first byte) for parts that the client takes, until it refuses
/// one. Return: how many bytes were transferred; all if the connection ended.
std::size_t ClientLink::ask_in_pieces(std::uint64_t address, std::size_t bytes,
                                      FunctionRef<Result<bool>(DmaAccess, std::size_t)> piece) {
    for (std::size_t done = 0; done != bytes && !failure_;) {
        const std::size_t here = std::min<std::uint64_t>(bytes - done, client_.transfer);
        const auto moved = piece({.address = address + done, .count = here}, done);
        if (!moved)
            failure_ = moved.error();
        else if (refused_ = !*moved; refused_)
            return done;
        done += here;
    }
    return bytes;
}

/// Serves what waits and may overtake: the client does not seem to answer before.
Result<void> ClientLink::let_overtake() {
    for (auto each = waiting_.begin(); meanwhile_ && each != waiting_.end();) {
        MOAT_LET(const bool served, meanwhile_(*each, Order::overtakes));
        if (served) {
            waiting_bytes_ -= sizeof(Message) + each->body.size();
            each = waiting_.erase(each);
        } else {
            ++each;
        }
    }
    return {};
}

/// Return: the reply, or nothing if the client refused.
Result<std::optional<Message>> ClientLink::ask(Command command, const DmaAccess& where,
                                               std::span<const std::byte> data) {
    Channel& channel = twin_ ? *twin_ : main_;
    MOAT_TRY(channel.send(dialogue_.ask(command), {bytes_of(where), data}));
    const auto deadline = std::chrono::steady_clock::now() + channel.patience();
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        const auto wait = waiting_.empty() ? left : std::min(left, overtaking_time);
        MOAT_LET(auto message, channel.receive(std::max(wait, std::chrono::milliseconds(0))));
        if (!message)
            MOAT_TRY(let_overtake());
        if (!message && wait < left)
            continue;
        if (!message)
            return fail(ErrorCode::busy, "the client does not answer a DMA message",
                        {"address", where.address}, {"bytes", where.count});
        if (twin_ && !message->header.is_reply())
            return fail(ErrorCode::refused, "a command on the twin socket");
        MOAT_TRY(dialogue_.arrived(message->header));
        if (message->header.is_reply())
            return message->header.failed() ? std::nullopt : std::move(message);
        MOAT_LET(const bool served,
                 meanwhile_ ? meanwhile_(*message, Order::kept) : Result<bool>(false));
        if (!served)
            MOAT_TRY(hold(*std::move(message)));
    }
}

} // namespace moat::serve
