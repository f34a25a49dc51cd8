// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A child process that cannot outlive this one, and is ended by its number. How to talk to it is
// stream_socket.hpp.
#pragma once

#include "moat/core/result.hpp"

#include "platform/memory_file.hpp"

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <sys/types.h>
#include <utility>

namespace moat::platform {

/// What a child that ended has left: its exit status, or the signal that ended it.
struct Ending {
    int status = 0;
    int signal = 0;
};

/// Used by one thread at a time; started by a thread that outlives it, since Linux ends a child
/// with the thread that made it (PR_SET_PDEATHSIG).
class ChildProcess {
  public:
    /// Starts `arguments[0]`, looked for in PATH. It gets `descriptors` under the same numbers, no
    /// input and no output; what it writes to its standard error is kept. It leaves no core file.
    /// Errors: not_found (no such program), io.
    static Result<ChildProcess> start(std::span<const std::string> arguments,
                                      std::span<const int> descriptors);

    ChildProcess(ChildProcess&& other) noexcept
        : number_(std::exchange(other.number_, -1)), words_(std::move(other.words_)),
          ending_(other.ending_) {}

    ChildProcess& operator=(ChildProcess&&) = delete;
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

    ~ChildProcess() { end(); }

    [[nodiscard]] pid_t number() const { return number_; }

    /// How it ended, if it did.
    [[nodiscard]] std::optional<Ending> ended();

    /// The same, once it has ended or `longest` is over.
    [[nodiscard]] std::optional<Ending> ended_within(std::chrono::milliseconds longest);

    /// Ends it if it has not ended; when this returns there is no such process.
    Ending end();

    /// The beginning of what it wrote to its standard error.
    [[nodiscard]] std::string words() const;

  private:
    ChildProcess(pid_t number, MemoryFile words) : number_(number), words_(std::move(words)) {}

    pid_t number_;
    MemoryFile words_;
    std::optional<Ending> ending_;
};

} // namespace moat::platform
