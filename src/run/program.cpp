// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/program.hpp"

#include "run/mount_namespace.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

namespace moat::run {

namespace {

volatile std::sig_atomic_t program_number = 0;

} // namespace

ProgramEnd program_end(int wait_status) {
    if (WIFSIGNALED(wait_status))
        return {.signal = WTERMSIG(wait_status)};
    return {.status = WEXITSTATUS(wait_status)};
}

std::string enter_view(const Options& options) {
    if (!options.redirect)
        if (const auto entered = enter_mount_namespace(options.folder); !entered)
            return "--paths mount needs a mount namespace, which this machine or its container "
                   "refuses (" +
                   entered.error() + "); use --paths redirect";
    return "";
}

std::string execute(const std::vector<std::string>& program) {
    std::vector<char*> arguments;
    for (const std::string& each : program)
        arguments.push_back(const_cast<char*>(each.c_str())); // execvp takes non-const strings
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    return program[0] + ": " + std::strerror(errno);
}

std::string read_all(int file) {
    std::string text;
    std::array<char, 512> part{};
    ssize_t size = 0;
    while ((size = ::read(file, part.data(), part.size())) > 0 || (size < 0 && errno == EINTR))
        text.append(part.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    return text;
}

SignalsForProgram::SignalsForProgram(pid_t program) {
    program_number = program;
    struct sigaction action = {};
    action.sa_handler = [](int signal) { ::kill(program_number, signal); };
    ::sigaction(SIGTERM, &action, &before_[0]);
    ::sigaction(SIGHUP, &action, &before_[1]);
    action.sa_handler = SIG_IGN; // the terminal sends these to the program as well
    ::sigaction(SIGINT, &action, &before_[2]);
    ::sigaction(SIGQUIT, &action, &before_[3]);
}

SignalsForProgram::~SignalsForProgram() {
    constexpr std::array signals = {SIGTERM, SIGHUP, SIGINT, SIGQUIT};
    for (std::size_t index = 0; index != signals.size(); ++index)
        ::sigaction(signals[index], &before_[index], nullptr);
}

} // namespace moat::run
