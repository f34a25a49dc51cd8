// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: ptrace(2).
#include "run/supervise/supervisor.hpp"

#include "run/supervise/call.hpp"
#include "run/supervise/region_access.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

namespace moat::run {

namespace {

constexpr long followed = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE |
                          PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC |
                          PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL;

[[nodiscard]] bool is_stop_signal(int signal) {
    return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/// The number after `name` in /proc/THREAD/status; 0 without one.
[[nodiscard]] long status_number(pid_t thread, std::string_view name) {
    std::ifstream file("/proc/" + std::to_string(thread) + "/status");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(name))
            return std::strtol(line.c_str() + name.size(), nullptr, 10);
    return 0;
}

void resume(pid_t thread, int signal = 0) {
    (void)::ptrace(PTRACE_CONT, thread, nullptr, signal);
}

} // namespace

Supervisor::Supervisor(const Options& options, int first_descriptor)
    : options_(options), first_descriptor_(first_descriptor) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    ::pthread_sigmask(SIG_BLOCK, &children, &signals_before_);
    child_signals_ =
        platform::FileDescriptor(::signalfd(-1, &children, SFD_NONBLOCK | SFD_CLOEXEC));
}

Supervisor::~Supervisor() {
    ::pthread_sigmask(SIG_SETMASK, &signals_before_, nullptr);
}

std::expected<void, std::string> Supervisor::follow(pid_t process) {
    if (::ptrace(PTRACE_SEIZE, process, nullptr, followed) == 0)
        return {};
    return std::unexpected(
        std::string("--supervise needs ptrace, which this machine or its container refuses: ") +
        std::strerror(errno));
}

int Supervisor::run(pid_t process) {
    bool is_ending = false;
    int result = 0;
    for (;;) {
        int status = 0;
        const pid_t thread = ::waitpid(-1, &status, __WALL | WNOHANG);
        if (thread == 0) {
            wait_for_event();
            close_files();
        } else if (thread < 0) {
            return result; // no child is left
        } else if (WIFSTOPPED(status)) {
            stopped(thread, status);
        } else {
            ended(thread);
            if (thread == process) {
                result = status;
                is_ending = true;
            }
        }
        if (is_ending)
            end_all();
    }
}

void Supervisor::wait_for_event() {
    std::array<pollfd, 2> wanted = {
        {{child_signals_.get(), POLLIN, 0}, {files_.events(), POLLIN, 0}}};
    (void)::poll(wanted.data(), wanted.size(), -1);
    std::array<signalfd_siginfo, 8> seen; // NOLINT(*-member-init): taken, not looked at
    (void)!::read(child_signals_.get(), seen.data(), sizeof seen);
}

void Supervisor::close_files() {
    while (const auto closed = files_.take_closed()) {
        const auto program = programs_.find(closed->process);
        if (program == programs_.end() || program->second->is_finished())
            continue;
        if (Session* const session = program->second->session_if_any())
            session->close(closed->file);
    }
}

TracedProgram& Supervisor::program_of(pid_t thread) {
    TracedProgram*& known = threads_[thread];
    if (known == nullptr) {
        const auto process = static_cast<pid_t>(status_number(thread, "Tgid:"));
        auto& program = programs_[process == 0 ? thread : process];
        if (!program)
            program =
                std::make_unique<TracedProgram>(process == 0 ? thread : process, files_, options_);
        known = program.get();
    }
    return *known;
}

void Supervisor::ended(pid_t thread) {
    threads_.erase(thread);
    const auto program = programs_.find(thread);
    if (program == programs_.end())
        return;
    std::erase_if(threads_, [&](const auto& each) { return each.second == program->second.get(); });
    program->second->finish();
    files_.disown(thread);
    programs_.erase(program);
}

void Supervisor::stopped(pid_t thread, int status) {
    const int event = status >> 16;
    const int signal = WSTOPSIG(status);
    if (event == PTRACE_EVENT_STOP && is_stop_signal(signal))
        (void)::ptrace(PTRACE_LISTEN, thread, nullptr, nullptr);
    else if (event != 0)
        take_event(thread, event);
    else if (signal == (SIGTRAP | 0x80))
        resume(thread);
    else
        resume(thread, take_signal(thread, signal));
}

int Supervisor::take_signal(pid_t thread, int signal) {
    siginfo_t info{};
    if (signal != SIGBUS || ::ptrace(PTRACE_GETSIGINFO, thread, nullptr, &info) != 0 ||
        info.si_code != BUS_ADRERR)
        return signal;
    StoppedThread stopped(thread);
    return serve_access(stopped, program_of(thread), files_,
                        reinterpret_cast<std::uint64_t>(info.si_addr))
               ? 0
               : signal;
}

void Supervisor::take_event(pid_t thread, int event) {
    TracedProgram& program = program_of(thread);
    unsigned long message = 0;
    switch (event) {
    case PTRACE_EVENT_SECCOMP: {
        close_files();
        StoppedThread stopped(thread);
        serve_call(stopped, program, files_, first_descriptor_);
        break;
    }
    case PTRACE_EVENT_EXEC: { // the other threads are gone, and so is the memory
        close_files();
        program.finish();
        std::erase_if(threads_, [&](const auto& each) { return each.second == &program; });
        const pid_t process = program.number();
        files_.disown(process);
        programs_[process] = std::make_unique<TracedProgram>(process, files_, options_);
        break;
    }
    case PTRACE_EVENT_EXIT:
        (void)::ptrace(PTRACE_GETEVENTMSG, thread, nullptr, &message);
        if (WIFSIGNALED(message) || status_number(thread, "Threads:") == 1) {
            close_files();
            program.finish();
        }
        break;
    default:
        break;
    }
    resume(thread);
}

void Supervisor::end_all() {
    for (const auto& [process, program] : programs_)
        ::kill(process, SIGKILL);
}

} // namespace moat::run
