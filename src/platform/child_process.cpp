// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "platform/child_process.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace moat::platform {
namespace {

constexpr ByteCount words_size(4096);

/// Runs in the child between fork and exec: only async-signal-safe calls. Return: the errno that
/// prevented the start.
int become(char* const* arguments, std::span<const int> descriptors, int nothing, int words,
           pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent)
        return ESRCH;
    constexpr rlimit no_core = {.rlim_cur = 0, .rlim_max = 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    if (::dup2(nothing, STDIN_FILENO) < 0 || ::dup2(nothing, STDOUT_FILENO) < 0 ||
        ::dup2(words, STDERR_FILENO) < 0)
        return errno;
    for (const int each : descriptors)
        if (::fcntl(each, F_SETFD, 0) < 0)
            return errno;
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execvp(arguments[0], arguments);
    return errno;
}

Ending ending_of(int status) {
    if (WIFSIGNALED(status))
        return {.status = 0, .signal = WTERMSIG(status)};
    return {.status = WEXITSTATUS(status), .signal = 0};
}

/// Retries after a signal.
pid_t wait_for(pid_t number, int* status, int options) {
    pid_t found = -1;
    do
        found = ::waitpid(number, status, options);
    while (found < 0 && errno == EINTR);
    return found;
}

} // namespace

Result<ChildProcess> ChildProcess::start(std::span<const std::string> arguments,
                                         std::span<const int> descriptors) {
    std::vector<char*> pointers;
    for (const std::string& each : arguments)
        pointers.push_back(const_cast<char*>(each.c_str())); // execvp takes non-const strings
    pointers.push_back(nullptr);
    MOAT_LET(MemoryFile words, MemoryFile::create("moat child's words", words_size));
    const FileDescriptor nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
    int ends[2];
    if (nothing.get() < 0 || ::pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno("cannot prepare a process");
    const FileDescriptor read_end(ends[0]);
    FileDescriptor write_end(ends[1]);
    const pid_t parent = ::getpid();
    const pid_t number = ::fork();
    if (number < 0)
        return fail_errno("cannot start a process");
    if (number == 0) {
        const int why =
            become(pointers.data(), descriptors, nothing.get(), words.descriptor(), parent);
        (void)!::write(write_end.get(), &why, sizeof why);
        ::_exit(127);
    }
    ChildProcess child(number, std::move(words));
    write_end.reset();
    // exec closes it, so the read ends either way.
    int why = 0;
    ssize_t size = -1;
    do
        size = ::read(read_end.get(), &why, sizeof why);
    while (size < 0 && errno == EINTR);
    if (size == 0)
        return child;
    errno = size == sizeof why ? why : EIO;
    return fail_errno("cannot start the program",
                      errno == ENOENT ? ErrorCode::not_found : ErrorCode::io);
}

std::optional<Ending> ChildProcess::ended() {
    int status = 0;
    if (!ending_ && wait_for(number_, &status, WNOHANG) == number_)
        ending_ = ending_of(status);
    return ending_;
}

std::optional<Ending> ChildProcess::ended_within(std::chrono::milliseconds longest) {
    if (ended())
        return ending_;
    const FileDescriptor process(static_cast<int>(::syscall(SYS_pidfd_open, number_, 0)));
    pollfd over = {.fd = process.get(), .events = POLLIN, .revents = 0};
    constexpr std::chrono::milliseconds::rep most = std::numeric_limits<int>::max();
    const auto milliseconds = std::clamp<std::chrono::milliseconds::rep>(longest.count(), 0, most);
    ::poll(&over, 1, static_cast<int>(milliseconds));
    return ended();
}

Ending ChildProcess::end() {
    if (number_ < 0)
        return {};
    if (!ended()) {
        int status = 0;
        ::kill(number_, SIGKILL);
        if (wait_for(number_, &status, 0) == number_)
            ending_ = ending_of(status);
        else
            ending_ = Ending{};
    }
    return *ending_;
}

std::string ChildProcess::words() const {
    const auto* const text = reinterpret_cast<const char*>(words_.bytes().data());
    return {text, std::find(text, text + words_.bytes().size(), '\0')};
}

} // namespace moat::platform
