// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Proxy: passes the messages between a vfio-user client and a server, but for the client's
// descriptors: so the server must ask for each access to memory, which is checked here.
#pragma once

#include "machine/soft/face.hpp"
#include "run/device_bus.hpp"
#include "serve/client_link.hpp"

#include <chrono>
#include <map>
#include <optional>

namespace moat::serve {

/// Used by one thread. Both sides are hostile.
class Proxy {
  public:
    /// `reports` outlives it.
    Proxy(machine::vfio_user::Channel client, machine::vfio_user::Channel server,
          const Reports& reports);

    /// Passes messages until one side closes its connection or `stop` (-1: never) is readable.
    /// Errors: the reason for which the connections were ended.
    [[nodiscard]] Result<void> run(int stop);

  private:
    /// Stands for the server's device: its command register decides whether it may access memory.
    class Shadow final : public machine::soft::DeviceModel {
      public:
        [[nodiscard]] machine::FunctionInfo info() const override { return {}; }

        [[nodiscard]] unsigned vectors() const override { return 0; }

        [[nodiscard]] std::uint64_t read(unsigned /*bar*/, std::uint64_t /*offset*/,
                                         machine::Width width) override {
            return machine::all_ones(width);
        }

        void write(unsigned /*bar*/, std::uint64_t /*offset*/, machine::Width /*width*/,
                   std::uint64_t /*value*/) override {}

        [[nodiscard]] bool step(machine::soft::BusMaster& /*bus*/) override { return false; }

        void reset() override {}
    };

    /// A change of the client's maps that the server has not confirmed.
    struct Change {
        machine::vfio_user::Header request;
        machine::vfio_user::DmaUnmap range;
        std::chrono::steady_clock::time_point latest; ///< for the server's reply
    };

    struct PassedOn {
        std::uint16_t id; ///< the server's
        machine::vfio_user::DmaAccess where;
    };

    /// Takes a message of the client, if one arrived. Return: whether it did.
    [[nodiscard]] Result<bool> take_from_client();
    [[nodiscard]] Result<void> answered(const machine::vfio_user::Message& reply);
    void begin(const machine::vfio_user::Header& request,
               const machine::vfio_user::DmaUnmap& range);
    void end_change(const machine::vfio_user::Header& reply);
    [[nodiscard]] Result<void> agree(const machine::vfio_user::Message& version);
    [[nodiscard]] Result<void> from_client(machine::vfio_user::Message message);
    [[nodiscard]] Result<void> from_server(const machine::vfio_user::Message& message);
    [[nodiscard]] Result<void> access(const machine::vfio_user::Message& message);
    void follow(machine::vfio_user::Command command, std::span<const std::byte> body);
    [[nodiscard]] Result<void> pass(machine::vfio_user::Channel& to,
                                    const machine::vfio_user::Message& message);

    Shadow shadow_;
    machine::soft::Face face_;
    ClientLink client_;
    machine::vfio_user::Channel server_;
    const Reports& reports_;
    run::AddressSpace space_;
    run::DeviceBus bus_;
    std::optional<Change> change_; ///< the client's next requests wait for its end
    /// The server's DMA messages that the client has not answered, by the identities it knows.
    std::map<std::uint16_t, PassedOn> passed_on_;
};

} // namespace moat::serve
