// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A child process that does not outlive this one, and is ended by its number. stream_socket.hpp
// talks to it.
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

/// How a child ended: its exit status, or its signal.
struct Ending {
    int status = 0;
    int signal = 0;
};

/// Used by one thread at a time. The thread that starts it outlives it: Linux ends a child with the
/// thread that created it (PR_SET_PDEATHSIG).
class ChildProcess {
  public:
    /// Starts `arguments[0]`, searched in PATH, with `descriptors` under the same numbers, no input
    /// and no output; keeps its standard error. It writes no core file. Errors: not_found (no such
    /// program), io.
    static Result<ChildProcess> start(std::span<const std::string> arguments,
                                      std::span<const int> descriptors);

    ChildProcess(ChildProcess&& other) noexcept
        : number_(std::exchange(other.number_, -1)), words_(std::move(other.words_)),
          ending_(other.ending_) {}

    ChildProcess& operator=(ChildProcess&&) = delete;

    ~ChildProcess() { end(); }

    [[nodiscard]] pid_t number() const { return number_; }

    /// How it ended; nothing while it runs.
    [[nodiscard]] std::optional<Ending> ended();

    /// The same, waiting up to `longest`.
    [[nodiscard]] std::optional<Ending> ended_within(std::chrono::milliseconds longest);

    /// Ends it if it runs; on return there is no such process.
    Ending end();

    /// The beginning of its standard error.
    [[nodiscard]] std::string words() const;

  private:
    ChildProcess(pid_t number, MemoryFile words) : number_(number), words_(std::move(words)) {}

    pid_t number_;
    MemoryFile words_;
    std::optional<Ending> ending_;
};

} // namespace moat::platform
