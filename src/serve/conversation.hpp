// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Conversation: one vfio-user client of one soft device, from its first message to its last.
#pragma once

#include "machine/soft/face.hpp"
#include "run/device_bus.hpp"
#include "serve/client_link.hpp"

namespace moat::serve {

/// What serves all clients of a device. Everything outlives a conversation.
struct Stage {
    machine::soft::Face& face;
    Reports reports;
    /// Leaves it to the client to refuse what its maps do not permit.
    bool unchecked = false;
    /// Whether the twin socket is accepted.
    machine::vfio_user::Capabilities offered = machine::vfio_user::own_capabilities;
};

/// Used by one thread. Its end resets the device.
class Conversation {
  public:
    Conversation(const Stage& stage, machine::vfio_user::Channel channel);
    ~Conversation();
    Conversation(const Conversation&) = delete;
    Conversation& operator=(const Conversation&) = delete;

    /// Serves until the client closes the connection or `stop` (-1: never) is readable. Errors: the
    /// reason for which the connection was ended.
    [[nodiscard]] Result<void> run(int stop);

  private:
    class Answers;

    /// The bus of a device whose accesses are not checked.
    class UncheckedBus final : public machine::soft::BusMaster {
      public:
        explicit UncheckedBus(Conversation& of) : of_(of) {}

        [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override;
        [[nodiscard]] ByteCount write(Iova to, std::span<const std::byte> from) override;
        void interrupt(unsigned vector) override;

      private:
        Conversation& of_;
    };

    [[nodiscard]] Result<void> handle(const machine::vfio_user::Message& message);
    [[nodiscard]] Result<bool> handle_meanwhile(const machine::vfio_user::Message& message,
                                                ClientLink::Order order);

    const Stage& stage_;
    ClientLink client_;
    run::AddressSpace space_;
    run::DeviceBus bus_;
    UncheckedBus unchecked_bus_{*this};
};

} // namespace moat::serve
