// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/supervise.hpp"

#include "platform/file_descriptor.hpp"
#include "run/supervise/call_filter.hpp"
#include "run/supervise/supervisor.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace moat::run {

namespace {

struct Pipe {
    platform::FileDescriptor read_end;
    platform::FileDescriptor write_end;

    [[nodiscard]] bool open() {
        std::array<int, 2> ends{};
        if (::pipe2(ends.data(), O_CLOEXEC) != 0)
            return false;
        read_end = platform::FileDescriptor(ends[0]);
        write_end = platform::FileDescriptor(ends[1]);
        return true;
    }
};

/// The child, once it is followed. Return: why it did not become the program.
[[nodiscard]] std::string become_supervised(const std::vector<std::string>& program,
                                            const Options& options, int first_descriptor) {
    if (std::string why = enter_view(options); !why.empty())
        return why;
    if (auto stops = stop_at_calls(first_descriptor, options.redirect); !stops)
        return stops.error();
    return execute(program);
}

} // namespace

std::expected<ProgramEnd, std::string> supervise(const Options& options,
                                                 const std::vector<std::string>& program) {
    const int first_descriptor = first_vfio_descriptor();
    Pipe start;
    Pipe trouble;
    if (!start.open() || !trouble.open())
        return std::unexpected(std::string("pipe: ") + std::strerror(errno));
    const pid_t child = ::fork();
    if (child < 0)
        return std::unexpected(std::string("fork: ") + std::strerror(errno));
    if (child == 0) {
        char ready = 0;
        start.write_end.reset();
        if (::read(start.read_end.get(), &ready, 1) != 1)
            ::_exit(127);
        const std::string why = become_supervised(program, options, first_descriptor);
        (void)!::write(trouble.write_end.get(), why.data(), why.size());
        ::_exit(127);
    }
    const SignalsForProgram signals(child);
    Supervisor supervisor(options, first_descriptor);
    trouble.write_end.reset();
    if (auto followed = supervisor.follow(child); !followed) {
        start.write_end.reset();
        (void)::waitpid(child, nullptr, 0);
        return std::unexpected(followed.error());
    }
    (void)!::write(start.write_end.get(), "", 1);
    const int status = supervisor.run(child);
    if (const std::string why = read_all(trouble.read_end.get()); !why.empty())
        return std::unexpected(why);
    return program_end(status);
}

} // namespace moat::run
