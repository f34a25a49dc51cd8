// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ReplayedClient: plays the client of a captured connection, and compares the server's messages
// with the captured ones, byte for byte.
#pragma once

#include "machine/vfio_user/channel.hpp"
#include "machine/vfio_user/message_text.hpp"
#include "platform/file_descriptor.hpp"

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <sys/eventfd.h>
#include <utility>
#include <vector>

namespace moat::tests {

struct Capture {
    std::vector<machine::vfio_user::CapturedMessage> messages;
    std::string problem; ///< the first line that cannot be read; empty if there is none

    /// The messages of a file's connections, one after another. Comments begin with '#'.
    static Capture read(const std::string& path) {
        using namespace machine::vfio_user;
        Capture capture;
        std::ifstream file(path);
        std::string line;
        if (!std::getline(file, line) || line != capture_title)
            capture.problem = path + " begins with: " + line;
        while (std::getline(file, line)) {
            if (line.starts_with('#') || line == capture_connection)
                continue;
            auto message = message_of(line);
            if (!message)
                capture.problem = path + ": " + line;
            else
                capture.messages.push_back(*std::move(message));
        }
        return capture;
    }
};

/// Sends a request once the server has sent what it had sent before it in the capture, and answers
/// a DMA message when it comes. So the order of a reply and a DMA message may differ from the
/// capture, where it depends on the time; the order of the DMA messages may not.
class ReplayedClient {
  public:
    ReplayedClient(machine::vfio_user::Channel channel, const Capture& capture)
        : channel_(std::move(channel)), messages_(capture.messages), came_(messages_.size()) {}

    /// Plays all messages. Return: the first difference; empty if there is none.
    [[nodiscard]] std::string play() {
        for (std::size_t at = 0; at != messages_.size() && difference_.empty(); ++at) {
            const auto& each = messages_[at];
            if (each.from == machine::vfio_user::Role::server)
                await(at);
            else if (!each.header.is_reply())
                send(each);
        }
        return difference_;
    }

    /// How many DMA messages and replies were as captured.
    [[nodiscard]] std::uint64_t dma_messages() const { return dma_messages_; }

    [[nodiscard]] std::uint64_t replies() const { return replies_; }

  private:
    using Captured = machine::vfio_user::CapturedMessage;

    /// Descriptors were not captured. Those of a session without shared memory are eventfds.
    void send(const Captured& message) {
        std::vector<platform::FileDescriptor> eventfds;
        std::vector<int> numbers;
        for (std::size_t count = 0; count != message.descriptors; ++count) {
            eventfds.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
            numbers.push_back(eventfds.back().get());
        }
        if (!channel_.send(message.header, {message.body}, numbers))
            difference_ = "the server takes no more: " + text(message);
    }

    void await(std::size_t at) {
        while (!came_[at] && difference_.empty()) {
            const auto message = channel_.receive(channel_.patience());
            if (!message || !*message)
                difference_ = "the server does not send " + text(messages_[at]);
            else
                match(**message);
        }
    }

    /// Compares with the first captured reply of the same identity, or with the next DMA message.
    void match(const machine::vfio_user::Message& message) {
        const auto& header = message.header;
        const Captured came{.from = machine::vfio_user::Role::server,
                            .header = header,
                            .descriptors = message.descriptors.size(),
                            .body = message.body};
        for (std::size_t at = 0; at != messages_.size(); ++at) {
            const Captured& each = messages_[at];
            if (came_[at] || each.from != machine::vfio_user::Role::server ||
                each.header.is_reply() != header.is_reply() ||
                (header.is_reply() && each.header.id != header.id))
                continue;
            came_[at] = true;
            if (text(each) != text(came))
                difference_ = "captured " + text(each) + "\n     now " + text(came);
            ++(header.is_reply() ? replies_ : dma_messages_);
            if (!header.is_reply())
                answer(at);
            return;
        }
        difference_ = "not captured: " + text(came);
    }

    /// Sends the captured reply to the DMA message at `at`; none if the capture ends before.
    void answer(std::size_t at) {
        const std::uint16_t id = messages_[at].header.id;
        for (++at; at != messages_.size(); ++at) {
            const Captured& each = messages_[at];
            if (each.from == machine::vfio_user::Role::client && each.header.is_reply() &&
                each.header.id == id)
                return send(each);
        }
    }

    [[nodiscard]] static std::string text(const Captured& message) {
        return line_of(message.from, message.header, message.descriptors, message.body);
    }

    machine::vfio_user::Channel channel_;
    const std::vector<Captured>& messages_;
    std::vector<bool> came_; ///< of the server's
    std::string difference_;
    std::uint64_t dma_messages_ = 0;
    std::uint64_t replies_ = 0;
};

} // namespace moat::tests
