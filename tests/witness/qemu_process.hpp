// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A QEMU process, driven through its machine protocol (QMP). Its arguments select what it emulates;
// x86_qemu_witness.hpp passes them.
#pragma once

#include "or_throw.hpp"
#include "platform/child_process.hpp"
#include "platform/stream_socket.hpp"

#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace moat::tests {

inline platform::StreamSocket socket_to_qemu() {
    return or_throw(platform::StreamSocket::create(std::chrono::seconds(30)), "a socket to QEMU");
}

class QemuProcess {
  public:
    struct NotInstalled : std::runtime_error {
        using runtime_error::runtime_error;
    };

    /// `arguments` begin with the program; the arguments for its machine protocol are added. It
    /// inherits `descriptors`.
    QemuProcess(std::vector<std::string> arguments, std::vector<int> descriptors)
        : process_(start(std::move(arguments), std::move(descriptors), monitor_.child())) {
        monitor_.close_child();
        receive(); // the greeting
        execute("qmp_capabilities");
    }

    /// Return: the line that answers; skips events before it.
    std::string execute(const std::string& command, const std::string& arguments = "{}") {
        or_throw(
            monitor_.send(R"({"execute":")" + command + R"(","arguments":)" + arguments + "}\n"),
            "QEMU");
        for (;;) {
            std::string line = receive();
            if (line.starts_with(R"({"return")"))
                return line;
            if (line.starts_with(R"({"error")"))
                throw std::runtime_error(
                    std::string("QEMU: ").append(command).append(": ").append(line));
        }
    }

    /// Runs a command of the human monitor. Return: its output.
    std::string human(const std::string& command) {
        return execute("human-monitor-command", R"({"command-line":")" + command + R"("})");
    }

  private:
    static platform::ChildProcess start(std::vector<std::string> arguments,
                                        std::vector<int> descriptors, int socket) {
        arguments.insert(arguments.end(), {"-chardev", "socket,id=qmp,fd=" + std::to_string(socket),
                                           "-mon", "chardev=qmp,mode=control"});
        descriptors.push_back(socket);
        auto process = platform::ChildProcess::start(arguments, descriptors);
        if (!process && process.error().code() == ErrorCode::not_found)
            throw NotInstalled(arguments[0] + " is not installed");
        return or_throw(std::move(process), arguments[0]);
    }

    std::string receive() {
        auto line = monitor_.receive_until('\n');
        if (!line)
            throw std::runtime_error("QEMU: " + to_string(line.error()) + "; " + process_.words());
        return std::string(*line);
    }

    platform::StreamSocket monitor_ = socket_to_qemu();
    platform::ChildProcess process_;
};

} // namespace moat::tests
