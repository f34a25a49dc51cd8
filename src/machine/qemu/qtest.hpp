// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's qtest protocol: physical memory and ports of its machine, read and written by lines of
// text. Which registers lie where is the callers' (pci_bus.hpp, qemu_machine.hpp).
// Source: QEMU, docs/devel/qtest.rst and the comment in softmmu/qtest.c.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"

#include "machine/machine.hpp"
#include "platform/child_process.hpp"
#include "platform/stream_socket.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace moat::machine::qemu {

/// Where an address lies.
enum class Space : std::uint8_t { memory, ports };

/// Writes are posted: they are sent together with the next read, or by `flush`, and their answers
/// are read then. Whatever goes wrong ends the process, by its number, and stays: reads give all
/// ones from then on, and `health` says why. Used by one thread at a time.
class Qtest {
  public:
    Qtest(platform::ChildProcess process, platform::StreamSocket socket)
        : process_(std::move(process)), socket_(std::move(socket)) {}

    [[nodiscard]] std::uint64_t read(Space space, std::uint64_t address, Width width);
    void write(Space space, std::uint64_t address, Width width, std::uint64_t value);

    /// Sends what is posted, without waiting for answers.
    void flush();

    /// Sends what is posted and waits until QEMU has done it.
    void drain();

    /// Is done once, between the next sending and the wait for its answers, or when it is finished.
    void do_meanwhile(FunctionRef<void()> work) {
        finish_meanwhile();
        meanwhile_ = work;
    }

    void finish_meanwhile() {
        if (const auto work = std::exchange(meanwhile_, std::nullopt))
            (*work)();
    }

    [[nodiscard]] Result<void> health() const;

    /// Reads, and drains that had something to wait for: what the socket's latency is paid for.
    [[nodiscard]] std::uint64_t round_trips() const { return round_trips_; }

    /// What QEMU wrote to its standard error.
    [[nodiscard]] std::string words() const { return process_.words(); }

    [[nodiscard]] pid_t process() const { return process_.number(); }

  private:
    void post(Space space, std::string_view verb, std::uint64_t address, Width width);
    std::string_view answer();
    void take_answers();
    void broken(const Error& why);
    void socket_failed(const Error& error);

    /// Answers that QEMU may leave in the socket before it is read: few enough for its buffer.
    static constexpr unsigned most_posted = 64;

    platform::ChildProcess process_;
    platform::StreamSocket socket_;
    std::string unsent_;
    unsigned unanswered_ = 0;
    std::uint64_t round_trips_ = 0;
    Result<void> health_;
    std::optional<FunctionRef<void()>> meanwhile_;
};

} // namespace moat::machine::qemu
