// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A QEMU process: started, spoken to over its machine protocol (QMP), and ended by its number.
// What it emulates is given as arguments; x86_qemu_witness.hpp does.
#pragma once

#include "file_descriptor.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace moat::tests {

/// Our end of a pair of sockets whose other end a child inherits. Reads wait for a bounded time.
class ChildSocket {
  public:
    ChildSocket() : ChildSocket(make_pair()) {}

    /// The number of the child's end.
    [[nodiscard]] int child() const { return child_.get(); }

    /// So that the child's end is open in the child alone, and its death can be seen.
    void close_child() { const FileDescriptor closed = std::move(child_); }

    void send(std::string_view text) {
        if (::send(parent_.get(), text.data(), text.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(text.size()))
            throw_errno("QEMU: send");
    }

    /// Up to and without the next `end`.
    std::string receive_until(char end) {
        std::string line;
        for (char c = receive(); c != end; c = receive())
            line += c;
        return line;
    }

    char receive() {
        if (next_ == received_) {
            constexpr int patience_ms = 30'000;
            pollfd readable = {.fd = parent_.get(), .events = POLLIN, .revents = 0};
            if (::poll(&readable, 1, patience_ms) != 1)
                throw std::runtime_error("QEMU: no answer within 30 seconds");
            const ssize_t size = ::read(parent_.get(), buffer_.data(), buffer_.size());
            if (size <= 0)
                throw std::runtime_error("QEMU ended by itself");
            next_ = 0;
            received_ = static_cast<std::size_t>(size);
        }
        return buffer_[next_++];
    }

  private:
    static std::pair<int, int> make_pair() {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
            throw_errno("socketpair");
        ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
        return {ends[0], ends[1]};
    }

    explicit ChildSocket(std::pair<int, int> ends)
        : parent_(ends.first, "socketpair"), child_(ends.second, "socketpair") {}

    FileDescriptor parent_;
    FileDescriptor child_;
    std::array<char, 4096> buffer_{};
    std::size_t next_ = 0;
    std::size_t received_ = 0;
};

class QemuProcess {
  public:
    struct NotInstalled : std::runtime_error {
        using runtime_error::runtime_error;
    };

    /// `arguments` begin with the program; those for its machine protocol are added.
    explicit QemuProcess(std::vector<std::string> arguments) {
        const std::string socket = std::to_string(monitor_.child());
        arguments.insert(arguments.end(), {"-chardev", "socket,id=qmp,fd=" + socket, "-mon",
                                           "chardev=qmp,mode=control"});
        start(arguments);
        monitor_.close_child();
        try {
            monitor_.receive_until('\n'); // the greeting
            execute("qmp_capabilities");
        } catch (...) {
            if (end() == not_found)
                throw NotInstalled(arguments[0] + " is not installed");
            throw;
        }
    }

    ~QemuProcess() { end(); }

    QemuProcess(const QemuProcess&) = delete;
    QemuProcess& operator=(const QemuProcess&) = delete;

    /// Return: the line that answers; events before it are passed over.
    std::string execute(const std::string& command, const std::string& arguments = "{}") {
        monitor_.send(R"({"execute":")" + command + R"(","arguments":)" + arguments + "}\n");
        for (;;) {
            std::string line = monitor_.receive_until('\n');
            if (line.starts_with(R"({"return")"))
                return line;
            if (line.starts_with(R"({"error")"))
                throw std::runtime_error(
                    std::string("QEMU: ").append(command).append(": ").append(line));
        }
    }

    /// A command of the monitor for people, and what it prints.
    std::string human(const std::string& command) {
        return execute("human-monitor-command", R"({"command-line":")" + command + R"("})");
    }

  private:
    void start(std::vector<std::string>& arguments) {
        std::vector<char*> pointers;
        for (std::string& each : arguments)
            pointers.push_back(each.data());
        pointers.push_back(nullptr);
        const pid_t parent = ::getpid();
        process_ = ::fork();
        if (process_ < 0)
            throw_errno("fork");
        if (process_ != 0)
            return;
        // It does not outlive this process, however that ends.
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() == parent)
            ::execvp(pointers[0], pointers.data());
        ::_exit(not_found);
    }

    /// Return: what it exited with, where it did so by itself; else -1.
    int end() {
        int status = 0;
        ::kill(process_, SIGKILL);
        ::waitpid(process_, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    static constexpr int not_found = 127;

    ChildSocket monitor_;
    pid_t process_ = -1;
};

} // namespace moat::tests
