// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "platform/stream_socket.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

namespace moat::platform {

Result<StreamSocket> StreamSocket::create(std::chrono::milliseconds patience) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) < 0)
        return fail_errno("cannot create a pair of sockets");
    // poll takes an int of milliseconds, and the deadline must fit the clock.
    constexpr std::chrono::milliseconds longest(std::numeric_limits<int>::max());
    return StreamSocket(FileDescriptor(ends[0]), FileDescriptor(ends[1]),
                        std::clamp(patience, std::chrono::milliseconds(0), longest));
}

Result<void> StreamSocket::wait_for(short events) const {
    const auto deadline = std::chrono::steady_clock::now() + patience_;
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        pollfd ready = {.fd = parent_.get(), .events = events, .revents = 0};
        const int count = ::poll(&ready, 1, left.count() > 0 ? static_cast<int>(left.count()) : 0);
        if (count > 0)
            return {};
        if (count == 0)
            return fail(ErrorCode::busy, "the other process does not answer",
                        {"milliseconds", static_cast<std::uint64_t>(patience_.count())});
        if (errno != EINTR)
            return fail_errno("cannot wait for the socket");
    }
}

/// Spins first: an answer comes sooner than a sleeping processor wakes up.
ssize_t StreamSocket::receive(std::span<char> piece) const {
    using namespace std::chrono_literals;
    std::optional<std::chrono::steady_clock::time_point> begin;
    for (;;) {
        const ssize_t size = ::recv(parent_.get(), piece.data(), piece.size(), MSG_DONTWAIT);
        if (size >= 0 || errno != EAGAIN)
            return size;
        const auto now = std::chrono::steady_clock::now();
        if (now - begin.value_or(now) > 200us) {
            errno = EAGAIN;
            return -1;
        }
        begin = begin.value_or(now);
        ::sched_yield();
    }
}

Result<void> StreamSocket::send(std::string_view text) {
    while (!text.empty()) {
        const ssize_t sent =
            ::send(parent_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            text.remove_prefix(static_cast<std::size_t>(sent));
        else if (errno != EAGAIN && errno != EINTR)
            return fail_errno("the other process has closed its socket");
        else
            MOAT_TRY(wait_for(POLLOUT));
    }
    return {};
}

Result<std::string_view> StreamSocket::receive_until(char end, std::size_t most) {
    received_.erase(0, taken_);
    taken_ = 0;
    std::size_t searched = 0;
    for (;;) {
        if (const std::size_t found = received_.find(end, searched); found != std::string::npos) {
            taken_ = found + 1;
            return std::string_view(received_).substr(0, found);
        }
        searched = received_.size();
        if (searched > most)
            return fail(ErrorCode::limit, "the other process sent a line that is too long",
                        {"characters", searched});
        std::array<char, 4096> piece;
        const ssize_t size = receive(piece);
        if (size > 0)
            received_.append(piece.data(), static_cast<std::size_t>(size));
        else if (size == 0)
            return fail(ErrorCode::io, "the other process has closed its socket");
        else if (errno != EAGAIN && errno != EINTR)
            return fail_errno("the other process has closed its socket");
        else
            MOAT_TRY(wait_for(POLLIN));
    }
}

} // namespace moat::platform
