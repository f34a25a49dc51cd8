// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's qtest protocol: reads and writes physical memory and ports of its machine, as lines of
// text. The callers know the registers (pci_bus.hpp, qemu_machine.hpp).
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

/// The address space of an access.
enum class Space : std::uint8_t { memory, ports };

/// Writes are posted: the next read, or `flush`, sends them and reads their answers. Any failure
/// ends the process for good: reads then return all ones, and `health` reports why. Used by one
/// thread at a time.
class Qtest {
  public:
    Qtest(platform::ChildProcess process, platform::StreamSocket socket)
        : process_(std::move(process)), socket_(std::move(socket)) {}

    [[nodiscard]] std::uint64_t read(Space space, std::uint64_t address, Width width);
    void write(Space space, std::uint64_t address, Width width, std::uint64_t value);

    /// Sends posted writes without waiting for answers.
    void flush();

    /// Sends posted writes and waits until QEMU has executed them.
    void drain();

    /// `work` runs once: between the next sending and the wait for its answers, or in finish.
    void do_meanwhile(FunctionRef<void()> work) {
        finish_meanwhile();
        meanwhile_ = work;
    }

    void finish_meanwhile() {
        if (const auto work = std::exchange(meanwhile_, std::nullopt))
            (*work)();
    }

    [[nodiscard]] Result<void> health() const { return health_; }

    /// How many waits for an answer there were: each costs the socket's latency.
    [[nodiscard]] std::uint64_t round_trips() const { return round_trips_; }

    /// QEMU's standard error.
    [[nodiscard]] std::string words() const { return process_.words(); }

    [[nodiscard]] pid_t process() const { return process_.number(); }

  private:
    void post(std::string_view verb, std::uint64_t address, Width width);
    std::string_view answer();
    void take_answers();
    void broken(const Error& why);
    void socket_failed(const Error& error);

    /// The most answers that QEMU may leave in the socket, so that its buffer does not fill up.
    static constexpr unsigned most_posted = 64;

    platform::ChildProcess process_;
    platform::StreamSocket socket_;
    std::string unsent_;
    unsigned unanswered_ = 0;
    std::uint64_t round_trips_ = 0;
    Result<void> health_;
    std::optional<FunctionRef<void()>> meanwhile_;
};

/// Registers in physical memory.
class MemoryRegisters : public Registers {
  public:
    MemoryRegisters(Qtest& qtest, PhysicalAddress start, ByteCount size)
        : Registers(size), qtest_(qtest), start_(start.value()) {}

  protected:
    Qtest& qtest_;

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) final {
        return qtest_.read(Space::memory, start_ + offset, width);
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) final {
        qtest_.write(Space::memory, start_ + offset, width, value);
    }

    const std::uint64_t start_;
};

} // namespace moat::machine::qemu
