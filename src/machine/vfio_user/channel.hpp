// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Channel: a Unix socket that carries vfio-user messages with their descriptors. Every wait and
// every size is bounded; the other end is hostile. Which message may follow which: protocol.hpp.
#pragma once

#include "moat/core/result.hpp"

#include "machine/vfio_user/protocol.hpp"
#include "platform/file_descriptor.hpp"

#include <chrono>
#include <deque>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <sys/socket.h>
#include <utility>
#include <vector>

namespace moat::machine::vfio_user {

struct Message {
    Header header = {};
    std::vector<std::byte> body = {};
    std::vector<platform::FileDescriptor> descriptors = {};
};

/// Used by one thread at a time. After an error of send or receive, every later call may fail.
class Channel {
  public:
    using Patience = std::chrono::milliseconds;
    using Pieces = std::initializer_list<std::span<const std::byte>>;

    static constexpr Patience usual_patience{5000};

    /// Learns of each message, in the order in which it is sent or returned.
    class Observer {
      public:
        Observer() = default;
        virtual ~Observer() = default;
        Observer(const Observer&) = delete;
        Observer& operator=(const Observer&) = delete;

        virtual void sent(const Header& header, std::span<const std::byte> body,
                          std::size_t descriptors) = 0;
        virtual void received(const Header& header, std::span<const std::byte> body,
                              std::size_t descriptors) = 0;
    };

    /// `observer` outlives the channel.
    void observe(Observer& observer) { observer_ = &observer; }

    /// `socket` is a connected stream socket; `patience` bounds each wait for the other end to go
    /// on within a message.
    explicit Channel(platform::FileDescriptor socket, Patience patience = usual_patience);

    /// Errors: not_found (no socket, or nobody listens), limit (a path of over 107 bytes), io.
    static Result<Channel> connect(const std::string& path, Patience patience = usual_patience);

    /// Two connected ends. Errors: io.
    static Result<std::pair<Channel, platform::FileDescriptor>>
    pair(Patience patience = usual_patience);

    /// Sends a message whose body is `pieces`; sets the header's size. Errors: io (the other end is
    /// closed), busy (it takes nothing for too long).
    [[nodiscard]] Result<void> send(Header header, Pieces pieces = {},
                                    std::span<const int> descriptors = {});

    /// Return: the next message, or nothing if none has begun within `longest`. Errors:
    /// out_of_range (not a message), io (the other end is closed), busy (a message stops in its
    /// middle).
    [[nodiscard]] Result<std::optional<Message>> receive(Patience longest);

    /// For poll.
    [[nodiscard]] int descriptor() const { return socket_.get(); }

    /// Whether the other end closed the connection between two messages.
    [[nodiscard]] bool ended() const { return ended_; }

    [[nodiscard]] Patience patience() const { return patience_; }

  private:
    enum class Filled : std::uint8_t { some, nothing };

    [[nodiscard]] Result<Filled> fill();
    [[nodiscard]] Result<void> take_descriptors(const msghdr& message);
    [[nodiscard]] Result<std::optional<Message>> take();

    void tell_sent(const Header& header, Pieces pieces, std::size_t descriptors) const;

    [[nodiscard]] bool is_within() const { return end_ != begin_; }

    platform::FileDescriptor socket_;
    Patience patience_;
    Observer* observer_ = nullptr;
    std::vector<std::byte> buffer_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;

    /// Descriptors that came together, and how many bytes had arrived with them. Linux ends a
    /// reception after descriptors: they belong to the last message that begins before.
    struct Passed {
        std::uint64_t arrived = 0;
        std::vector<platform::FileDescriptor> descriptors = {};
    };

    std::deque<Passed> passed_;
    std::size_t passed_count_ = 0; ///< of descriptors
    std::uint64_t taken_ = 0;      ///< bytes of all messages that were returned
    bool ended_ = false;
};

/// Waits until one of `descriptors` (-1: none) is readable, at most for `longest`.
void wait_for_any(std::initializer_list<int> descriptors, std::chrono::milliseconds longest);

} // namespace moat::machine::vfio_user
