// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_user/channel.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

namespace moat::machine::vfio_user {

namespace {

using platform::fail_errno;
using platform::FileDescriptor;
using Clock = std::chrono::steady_clock;

constexpr std::size_t first_buffer = std::size_t{1} << 16;
/// What Linux passes at most with one message.
constexpr std::size_t most_passed = 253;
/// An answer comes sooner than a sleeping processor wakes up.
constexpr std::chrono::microseconds spin_time(50);

/// Room for the descriptors of a message, aligned as Linux wants it.
union ControlBuffer {
    cmsghdr alignment;
    std::array<std::byte, CMSG_SPACE(most_passed * sizeof(int))> bytes;
};

/// Waits for `events` until `deadline`. Return: whether they came.
[[nodiscard]] bool wait_until(int socket, short events, Clock::time_point deadline) {
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
        pollfd ready = {.fd = socket, .events = events, .revents = 0};
        const int count =
            ::poll(&ready, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
        if (count >= 0 || errno != EINTR)
            return count != 0;
    }
}

} // namespace

void wait_for_any(std::initializer_list<int> descriptors, std::chrono::milliseconds longest) {
    std::array<pollfd, 4> ready{};
    std::size_t count = 0;
    for (const int each : descriptors)
        if (each >= 0)
            ready.at(count++) = {.fd = each, .events = POLLIN, .revents = 0};
    ::poll(ready.data(), count, static_cast<int>(longest.count()));
}

Channel::Channel(FileDescriptor socket, Patience patience)
    : socket_(std::move(socket)), patience_(patience), buffer_(first_buffer) {}

Result<Channel> Channel::connect(const std::string& path, Patience patience) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path)
        return fail(ErrorCode::limit, "a socket's path has 1 to 107 bytes", {"bytes", path.size()});
    std::ranges::copy(path, address.sun_path);
    FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (socket.get() < 0)
        return fail_errno("cannot create a socket");
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        return fail_errno("no server listens at this socket",
                          errno == ENOENT || errno == ECONNREFUSED ? ErrorCode::not_found
                                                                   : ErrorCode::io);
    return Channel(std::move(socket), patience);
}

Result<std::pair<Channel, FileDescriptor>> Channel::pair(Patience patience) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) < 0)
        return fail_errno("cannot create a pair of sockets");
    return std::pair(Channel(FileDescriptor(ends[0]), patience), FileDescriptor(ends[1]));
}

Result<void> Channel::send(Header header, Pieces pieces, std::span<const int> descriptors) {
    std::array<iovec, 6> parts{};
    std::size_t left = sizeof header;
    std::size_t count = 1;
    for (const auto piece : pieces) {
        parts.at(count++) = {const_cast<std::byte*>(piece.data()), piece.size()};
        left += piece.size();
    }
    header.size = static_cast<std::uint32_t>(left);
    parts[0] = {&header, sizeof header};
    if (observer_ != nullptr)
        tell_sent(header, pieces, descriptors.size());

    ControlBuffer control;
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    if (!descriptors.empty()) {
        message.msg_control = control.bytes.data();
        message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
        cmsghdr* const rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
        std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
    }
    const auto deadline = Clock::now() + patience_;
    while (left != 0) {
        const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR)
                return fail_errno("the other end has closed the connection");
            if (!wait_until(socket_.get(), POLLOUT, deadline))
                return fail(ErrorCode::busy, "the other end takes no messages",
                            {"milliseconds", static_cast<std::uint64_t>(patience_.count())});
            continue;
        }
        left -= static_cast<std::size_t>(sent);
        message.msg_control = nullptr; // they went with the first byte
        message.msg_controllen = 0;
        for (auto gone = static_cast<std::size_t>(sent); gone != 0;) {
            iovec& part = *message.msg_iov;
            const std::size_t here = std::min(gone, part.iov_len);
            part.iov_base = static_cast<std::byte*>(part.iov_base) + here;
            part.iov_len -= here;
            gone -= here;
            if (part.iov_len == 0) {
                ++message.msg_iov;
                --message.msg_iovlen;
            }
        }
    }
    return {};
}

void Channel::tell_sent(const Header& header, Pieces pieces, std::size_t descriptors) const {
    std::vector<std::byte> body;
    for (const auto piece : pieces)
        body.insert(body.end(), piece.begin(), piece.end());
    observer_->sent(header, body, descriptors);
}

Result<void> Channel::take_descriptors(const msghdr& message) {
    // CMSG_NXTHDR takes a non-const message.
    auto* const all = const_cast<msghdr*>(&message);
    for (cmsghdr* each = CMSG_FIRSTHDR(all); each != nullptr; each = CMSG_NXTHDR(all, each)) {
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
            continue;
        Passed& passed = passed_.emplace_back();
        passed.arrived = taken_ + (end_ - begin_);
        const std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t index = 0; index != count; ++index) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(each) + index * sizeof number, sizeof number);
            passed.descriptors.emplace_back(number);
        }
        passed_count_ += count;
    }
    if ((message.msg_flags & MSG_CTRUNC) != 0 || passed_count_ > most_passed)
        return fail(ErrorCode::limit, "messages have too many descriptors",
                    {"descriptors", passed_count_}, {"most", most_passed});
    return {};
}

/// Receives what is there into the buffer, which has room.
Result<Channel::Filled> Channel::fill() {
    ControlBuffer control;
    iovec room = {buffer_.data() + end_, buffer_.size() - end_};
    msghdr message{};
    message.msg_iov = &room;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.bytes.size();
    const ssize_t size = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return Filled::nothing;
    if (size < 0)
        return fail_errno("the other end has closed the connection");
    if (size == 0) {
        ended_ = !is_within();
        return fail(ErrorCode::io,
                    ended_ ? "the other end has closed the connection"
                           : "the connection ended in the middle of a message",
                    {"bytes", end_ - begin_});
    }
    end_ += static_cast<std::size_t>(size);
    MOAT_TRY(take_descriptors(message));
    return Filled::some;
}

/// The message at the buffer's beginning, if it is complete. Makes room for it otherwise.
Result<std::optional<Message>> Channel::take() {
    const std::size_t present = end_ - begin_;
    std::size_t wanted = sizeof(Header);
    if (present >= sizeof(Header)) {
        Message message;
        std::memcpy(&message.header, buffer_.data() + begin_, sizeof(Header));
        MOAT_TRY(Dialogue::check(message.header));
        wanted = message.header.size;
        if (present >= wanted) {
            const auto start = buffer_.begin() + static_cast<std::ptrdiff_t>(begin_);
            message.body.assign(start + sizeof(Header),
                                start + static_cast<std::ptrdiff_t>(wanted));
            begin_ += wanted;
            taken_ += wanted;
            for (; !passed_.empty() && passed_.front().arrived <= taken_; passed_.pop_front()) {
                passed_count_ -= passed_.front().descriptors.size();
                std::ranges::move(passed_.front().descriptors,
                                  std::back_inserter(message.descriptors));
            }
            if (observer_ != nullptr)
                observer_->received(message.header, message.body, message.descriptors.size());
            return message;
        }
    }
    if (begin_ != 0) {
        std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_),
                  buffer_.begin() + static_cast<std::ptrdiff_t>(end_), buffer_.begin());
        begin_ = 0;
        end_ = present;
    }
    if (buffer_.size() < wanted)
        buffer_.resize(wanted);
    return std::nullopt;
}

Result<std::optional<Message>> Channel::receive(Patience longest) {
    const auto begin = Clock::now();
    std::optional<Clock::time_point> stuck; ///< when a message that has begun is given up
    for (;;) {
        MOAT_LET(auto message, take());
        if (message)
            return message;
        MOAT_LET(const Filled filled, fill());
        if (filled == Filled::some)
            continue;
        const auto now = Clock::now();
        if (is_within() && !stuck)
            stuck = now + patience_;
        if (!is_within() && now - begin >= longest)
            return std::nullopt;
        if (is_within() && now >= *stuck)
            return fail(ErrorCode::busy, "a message stops in its middle", {"bytes", end_ - begin_},
                        {"milliseconds", static_cast<std::uint64_t>(patience_.count())});
        if (now - begin < spin_time)
            ::sched_yield();
        else
            (void)wait_until(socket_.get(), POLLIN, is_within() ? *stuck : begin + longest);
    }
}

} // namespace moat::machine::vfio_user
