// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serve/message_capture.hpp"

#include "machine/vfio_user/message_text.hpp"

namespace moat::serve {

using namespace machine::vfio_user;

MessageCapture::MessageCapture(const std::string& path) {
    if (path.empty())
        return;
    file_.open(path, std::ios::trunc);
    file_ << capture_title << '\n';
}

void MessageCapture::follow(Channel& channel) {
    if (!file_.is_open())
        return;
    file_ << capture_connection << '\n';
    channel.observe(*this);
}

void MessageCapture::sent(const Header& header, std::span<const std::byte> body,
                          std::size_t descriptors) {
    file_ << line_of(Role::server, header, descriptors, body) << '\n';
}

void MessageCapture::received(const Header& header, std::span<const std::byte> body,
                              std::size_t descriptors) {
    file_ << line_of(Role::client, header, descriptors, body) << '\n';
}

} // namespace moat::serve
