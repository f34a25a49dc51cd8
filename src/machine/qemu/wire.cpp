// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/qemu/wire.hpp"

#include <sys/socket.h>

namespace moat::machine::qemu {

Result<std::unique_ptr<Wire>> Wire::create() {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) < 0)
        return platform::fail_errno("cannot create a pair of sockets");
    return std::unique_ptr<Wire>(
        new Wire(platform::FileDescriptor(ends[0]), platform::FileDescriptor(ends[1])));
}

void Wire::pump() {
    for (;;) {
        if (left_.empty()) {
            const ssize_t size = ::recv(parent_.get(), piece_.data(), piece_.size(), MSG_DONTWAIT);
            if (size <= 0)
                return;
            left_ = std::span(piece_).first(static_cast<std::size_t>(size));
        }
        const ssize_t sent =
            ::send(parent_.get(), left_.data(), left_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        left_ = left_.subspan(static_cast<std::size_t>(sent));
    }
}

} // namespace moat::machine::qemu
