// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Proxy: passes the messages between a vfio-user client and a server, but for the client's
// descriptors: so the server must ask for each access to memory, which is checked here.
#pragma once

#include "machine/soft/face.hpp"
#include "run/device_bus.hpp"
#include "run/recorder.hpp"
#include "serve/client_link.hpp"

#include <cstdint>
#include <map>
#include <string>

namespace moat::serve {

/// Used by one thread. Both sides are hostile.
class Proxy {
  public:
    /// `findings` and `tally` outlive it; `name` is the device's in reports.
    Proxy(machine::vfio_user::Channel client, machine::vfio_user::Channel server, std::string name,
          run::Findings& findings, run::Tally& tally, Print print);

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
    run::Tally& tally_;
    run::AddressSpace space_;
    run::Recorder recorder_; ///< records nothing yet
    run::DeviceBus bus_;
    /// Changes of the client's maps that the server has not confirmed, by the message's identity.
    std::map<std::uint16_t, machine::vfio_user::DmaUnmap> undo_map_;
    std::map<std::uint16_t, machine::vfio_user::DmaUnmap> unmap_;
};

} // namespace moat::serve
