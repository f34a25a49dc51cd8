// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Supervisor: follows every thread of the program by ptrace and serves their stops.
#pragma once

#include "run/options.hpp"
#include "run/supervise/open_files.hpp"
#include "run/supervise/traced_program.hpp"

#include <expected>
#include <map>
#include <memory>
#include <string>
#include <sys/types.h>
#include <unordered_map>

namespace moat::run {

/// Belongs to the thread that made it. SIGCHLD is blocked while one lives.
class Supervisor {
  public:
    Supervisor(const Options& options, int first_descriptor);
    ~Supervisor();
    Supervisor(const Supervisor&) = delete;
    Supervisor& operator=(const Supervisor&) = delete;

    /// From now on the threads of `process`, a child of this one, and of its children are followed.
    /// They end if this process does. Error: why the machine refuses.
    [[nodiscard]] std::expected<void, std::string> follow(pid_t process);

    /// Serves until `process` has ended; then ends those that it left. Return: its wait status.
    [[nodiscard]] int run(pid_t process);

  private:
    void wait_for_event();
    void close_files();
    [[nodiscard]] TracedProgram& program_of(pid_t thread);
    void stopped(pid_t thread, int status);
    void ended(pid_t thread);
    /// Return: the signal that the thread gets.
    [[nodiscard]] int take_signal(pid_t thread, int signal);
    void take_event(pid_t thread, int event);
    void end_all();

    const Options& options_;
    int first_descriptor_;
    sigset_t signals_before_{};
    platform::FileDescriptor child_signals_;
    OpenFiles files_;
    std::map<pid_t, std::unique_ptr<TracedProgram>> programs_; ///< by process
    std::unordered_map<pid_t, TracedProgram*> threads_;
};

} // namespace moat::run
