// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RemoteDevice: the device of a vfio-user server. Register accesses are messages; the server's DMA
// messages become accesses of a bus. vfio_user_machine.hpp makes it a machine.
#pragma once

#include "moat/core/result.hpp"

#include "machine/pci.hpp"
#include "machine/soft/device_model.hpp"
#include "machine/vfio_user/channel.hpp"

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moat::machine::vfio_user {

/// What a server says about itself and its device.
struct Survey {
    Capabilities connection = {};
    DeviceInfo device = {};
    std::vector<RegionInfo> regions = {}; ///< without those that it refused to describe
    std::vector<IrqInfo> interrupts = {}; ///< likewise
    std::uint16_t subsystem_vendor = 0;
    std::uint16_t subsystem_device = 0;
    std::uint8_t revision = 0;
};

/// Used by one thread. The server is hostile: an error ends the connection, and stays.
class RemoteDevice final : public soft::DeviceModel {
  public:
    static constexpr unsigned config_region = 7;

    /// Connects, agrees on a version and asks for the device's shape. Errors: the channel's;
    /// unsupported (a version, or no PCI device); mismatch (answers that contradict themselves).
    static Result<std::unique_ptr<RemoteDevice>> connect(const std::string& socket,
                                                         Channel::Patience patience);

    /// The same over a connected socket.
    static Result<std::unique_ptr<RemoteDevice>> negotiate(Channel channel);

    /// From now on DMA messages access `bus`; until then they are refused.
    void connect_bus(soft::BusMaster& bus) { bus_ = &bus; }

    [[nodiscard]] FunctionInfo info() const override { return info_; }

    [[nodiscard]] unsigned vectors() const override { return vectors_; }

    /// The index of the kind of interrupts that `vectors` counts: 2 for MSI-X, 1 for MSI.
    [[nodiscard]] unsigned interrupt_kind() const { return interrupt_kind_; }

    /// Asks for everything that a list of the device shows: at most most_surveyed regions and kinds
    /// of interrupts. Errors: mismatch (an answer about another index), and the connection's.
    [[nodiscard]] Result<Survey> survey();

    static constexpr unsigned most_surveyed = 16;

    /// `region` may also be config_region. Accesses past the server's region read as all ones.
    [[nodiscard]] std::uint64_t read(unsigned region, std::uint64_t offset, Width width) override;
    void write(unsigned region, std::uint64_t offset, Width width, std::uint64_t value) override;

    /// Serves a DMA message if one has arrived.
    [[nodiscard]] bool step(soft::BusMaster& bus) override;

    /// Serves DMA messages for up to `longest`, or until one was served.
    void serve(std::chrono::milliseconds longest);

    void reset() override;

    /// Errors: refused (by the server), and the connection's.
    [[nodiscard]] Result<void> map(const DmaMap& map, int file = -1);
    [[nodiscard]] Result<void> unmap(const DmaUnmap& unmap);

    /// Makes vectors from 0 on signal these eventfds; none: disables them all. Errors: map's.
    [[nodiscard]] Result<void> set_interrupts(std::span<const int> eventfds);

    /// The reason for which the connection was ended, if it was.
    [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }

    /// How many replies were awaited.
    [[nodiscard]] std::uint64_t round_trips() const { return round_trips_; }

  private:
    static constexpr unsigned most_posted = 64;

    explicit RemoteDevice(Channel channel) : main_(std::move(channel)) {}

    [[nodiscard]] Result<void> agree();
    [[nodiscard]] Result<void> learn();
    [[nodiscard]] Result<void> learn_interrupts(unsigned kinds);
    /// What the server answers about `index`, as `T`. Errors: refused, mismatch, the connection's.
    template <class T>
    [[nodiscard]] Result<T> describe(Command command, unsigned index);
    /// The reply; its body has at least `least` bytes. Errors: refused, and the connection's.
    [[nodiscard]] Result<Message> ask(Command command, Channel::Pieces pieces, std::size_t least,
                                      std::span<const int> descriptors = {});
    [[nodiscard]] Result<Message> await_reply(Command command);
    [[nodiscard]] Result<bool> serve_one(std::chrono::milliseconds longest);
    [[nodiscard]] Result<void> perform(Channel& channel, const Message& request);
    /// Keeps the reason if the connection cannot go on.
    template <class T>
    Result<T> keep(Result<T> result);

    Channel main_;
    std::optional<Channel> twin_;
    soft::BusMaster* bus_ = nullptr;
    Dialogue dialogue_{Role::client};
    Capabilities server_ = {};
    DeviceInfo device_ = {};
    FunctionInfo info_ = {};
    std::array<std::uint64_t, config_region + 1> sizes_{};
    unsigned vectors_ = 0;
    unsigned interrupt_kind_ = 0;
    unsigned posted_ = 0; ///< writes since the last reply
    std::uint64_t round_trips_ = 0;
    std::optional<Error> failure_;
};

} // namespace moat::machine::vfio_user
