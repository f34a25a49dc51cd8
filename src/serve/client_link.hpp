// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ClientLink: a vfio-user client as a server sees it: its messages in their order, and its memory,
// reached through the descriptors that it passed or by DMA messages.
#pragma once

#include "machine/vfio_user/channel.hpp"
#include "platform/memory_file.hpp"
#include "run/address_space.hpp"
#include "run/client.hpp"
#include "serve/reports.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::serve {

/// Used by one thread. The client is hostile: an error ends its connection.
class ClientLink final : public run::Client {
  public:
    /// Records the client's maps as those of `device`. `reports` outlives it.
    ClientLink(machine::vfio_user::Channel channel, const Reports& reports, machine::Bdf device);

    /// Records that all maps have ended.
    ~ClientLink();
    ClientLink(const ClientLink&) = delete;
    ClientLink& operator=(const ClientLink&) = delete;

    /// Return: the next request, or nothing if none begins within `longest`. Errors: the channel's;
    /// refused (a message that may not come now).
    [[nodiscard]] Result<std::optional<machine::vfio_user::Message>>
    next(std::chrono::milliseconds longest);

    /// The next message to arrive: a request, past those that wait, or a reply to pass_on().
    [[nodiscard]] Result<std::optional<machine::vfio_user::Message>>
    receive(std::chrono::milliseconds longest);

    /// Lets a request wait for next(). Errors: limit.
    [[nodiscard]] Result<void> hold(machine::vfio_user::Message request);

    /// Whether a request overtakes those that wait.
    enum class Order : std::uint8_t { kept, overtakes };

    /// What serves a request that arrives during a DMA message: returns whether it did. A client
    /// may await the reply before it answers the DMA message, as QEMU does. So a request that
    /// waited for overtaking_time is passed once more, as one that overtakes.
    using Meanwhile = std::function<Result<bool>(const machine::vfio_user::Message&, Order)>;

    void serve_meanwhile(Meanwhile serve) { meanwhile_ = std::move(serve); }

    /// From now on, accesses to memory without a descriptor transfer nothing and succeed.
    void leave_messages() { leaves_messages_ = true; }

    /// Whether an access was left to pass_on() since the last call.
    [[nodiscard]] bool left_message() { return std::exchange(left_message_, false); }

    /// Sends a DMA message of a server's. Return: the identity of its reply.
    [[nodiscard]] Result<std::uint16_t> pass_on(const machine::vfio_user::Message& message);

    /// Answers a request, unless it wants no reply.
    [[nodiscard]] Result<void> reply(const machine::vfio_user::Header& request,
                                     machine::vfio_user::Channel::Pieces pieces = {},
                                     std::span<const int> descriptors = {});
    [[nodiscard]] Result<void> refuse(const machine::vfio_user::Header& request, int error);

    /// Answers the first request, VERSION, with a twin socket if the client offers one and
    /// `offered` has one. Errors: the channel's, and those of decode_version.
    [[nodiscard]] Result<void> agree(const machine::vfio_user::Message& version,
                                     const machine::vfio_user::Capabilities& offered);

    /// Adds a mapping to the memory and to `space`; `file` is -1 without a descriptor, and stays
    /// the caller's. Return: errno's number for the reply, 0 for success.
    [[nodiscard]] int map(const machine::vfio_user::DmaMap& map, int file, run::AddressSpace& space,
                          const fault::Event& event);
    [[nodiscard]] int unmap(const machine::vfio_user::DmaUnmap& unmap, run::AddressSpace& space,
                            const fault::Event& event);

    /// Whether requests wait that arrived during a DMA message.
    [[nodiscard]] bool has_waiting() const { return !waiting_.empty(); }

    /// Why the connection ended during a DMA message, if it did. Accesses do nothing from then on.
    [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }

    [[nodiscard]] machine::vfio_user::Channel& channel() { return main_; }

    /// The client's memory; addresses are the client's IOVAs, inside one mapping.
    [[nodiscard]] std::size_t read(std::uint64_t address, std::span<std::byte> into) override;
    [[nodiscard]] std::size_t write(std::uint64_t address,
                                    std::span<const std::byte> from) override;

    /// Whether it answered the latest access with an error.
    [[nodiscard]] bool refused() const override { return refused_; }

    [[nodiscard]] int duplicate(int /*descriptor*/) override { return -1; }

    [[nodiscard]] run::File file_of(int /*descriptor*/) override { return run::File::none; }

    [[nodiscard]] fault::StackView stack(run::Stacks& /*stacks*/) override { return {}; }

    [[nodiscard]] std::uint64_t thread() override { return 0; }

    void print(std::string_view text) override { reports_.print(text); }

  private:
    struct Region {
        std::uint64_t size = 0;
        std::optional<platform::Mapping> memory = {};
    };

    /// The client's memory at `address`, in this process; empty where there is no descriptor.
    [[nodiscard]] std::span<std::byte> mapped(std::uint64_t address, std::size_t bytes) const;
    [[nodiscard]] Result<std::optional<machine::vfio_user::Message>>
    ask(machine::vfio_user::Command command, const machine::vfio_user::DmaAccess& where,
        std::span<const std::byte> data);
    [[nodiscard]] std::size_t
    ask_in_pieces(std::uint64_t address, std::size_t bytes,
                  FunctionRef<Result<bool>(machine::vfio_user::DmaAccess, std::size_t)> piece);

    [[nodiscard]] Result<void> let_overtake();

    static constexpr std::chrono::milliseconds overtaking_time{10};
    static constexpr std::size_t most_waiting_bytes = std::size_t{16} << 20;

    machine::vfio_user::Channel main_;
    std::optional<machine::vfio_user::Channel> twin_;
    const Reports& reports_;
    const std::string device_; ///< its address, in the recording
    machine::vfio_user::Dialogue dialogue_{machine::vfio_user::Role::server};
    machine::vfio_user::Capabilities client_ = {};
    std::map<std::uint64_t, Region> regions_; ///< by address
    std::deque<machine::vfio_user::Message> waiting_;
    std::size_t waiting_bytes_ = 0;
    Meanwhile meanwhile_;
    bool leaves_messages_ = false;
    bool left_message_ = false;
    bool refused_ = false; ///< the latest access, by an error reply
    std::optional<Error> failure_;
};

} // namespace moat::serve
