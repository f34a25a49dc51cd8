// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The program's process: what happens between fork and exec, which signals are for it, how it
// ended. Launch and the supervisor start it.
#pragma once

#include "run/options.hpp"

#include <array>
#include <csignal>
#include <string>
#include <sys/types.h>
#include <vector>

namespace moat::run {

/// How the program ended.
struct ProgramEnd {
    int status = 0;
    int signal = 0; ///< 0 if it exited

    /// As a shell gives it.
    [[nodiscard]] int shell_status() const { return signal == 0 ? status : 128 + signal; }
};

/// Of a status of waitpid.
[[nodiscard]] ProgramEnd program_end(int wait_status);

/// In the child: puts the soft devices' files in place, where they are mounted. Return: why it
/// failed; empty if it did not.
[[nodiscard]] std::string enter_view(const Options& options);

/// In the child: becomes the program. Return: why it failed.
[[nodiscard]] std::string execute(const std::vector<std::string>& program);

/// Everything up to the end of `file`.
[[nodiscard]] std::string read_all(int file);

/// While the program runs, signals to end are for it.
class SignalsForProgram {
  public:
    explicit SignalsForProgram(pid_t program);
    ~SignalsForProgram();
    SignalsForProgram(const SignalsForProgram&) = delete;
    SignalsForProgram& operator=(const SignalsForProgram&) = delete;

  private:
    std::array<struct sigaction, 4> before_{};
};

} // namespace moat::run
