// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serve/listener.hpp"

#include "machine/vfio_user/channel.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace moat::serve {

using platform::fail_errno;
using platform::FileDescriptor;

Result<Listener> Listener::create(const std::string& path) {
    struct stat there{};
    if (::lstat(path.c_str(), &there) == 0) {
        if (!S_ISSOCK(there.st_mode))
            return fail(ErrorCode::overlap, "the path names something that is no socket");
        const auto other = machine::vfio_user::Channel::connect(path);
        if (other)
            return fail(ErrorCode::busy, "another server listens at this socket");
        if (other.error().code() == ErrorCode::not_found)
            ::unlink(path.c_str());
    }
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path)
        return fail(ErrorCode::limit, "a socket's path has 1 to 107 bytes", {"bytes", path.size()});
    std::ranges::copy(path, address.sun_path);
    FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (socket.get() < 0 ||
        ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        return fail_errno("cannot create the socket");
    Listener listener(std::move(socket), path);
    if (::listen(listener.socket_.get(), 1) < 0)
        return fail_errno("cannot listen at the socket");
    return listener;
}

Listener::~Listener() {
    if (!path_.empty())
        ::unlink(path_.c_str());
}

Result<std::optional<FileDescriptor>> Listener::accept(int stop) {
    for (;;) {
        std::array<pollfd, 2> ready = {{{.fd = socket_.get(), .events = POLLIN, .revents = 0},
                                        {.fd = stop, .events = POLLIN, .revents = 0}}};
        if (::poll(ready.data(), ready.size(), -1) < 0 && errno != EINTR)
            return fail_errno("cannot wait for a client");
        if (ready[1].revents != 0)
            return std::nullopt;
        FileDescriptor client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (client.get() >= 0)
            return client;
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            return fail_errno("cannot accept a client");
    }
}

} // namespace moat::serve
