// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Listener: a socket with a name in the file system, from its creation to its removal.
#pragma once

#include "moat/core/result.hpp"

#include "platform/file_descriptor.hpp"

#include <optional>
#include <string>
#include <utility>

namespace moat::serve {

class Listener {
  public:
    /// Replaces a socket that nobody listens at any more. Errors: busy (someone does), overlap (the
    /// path names something else), limit (a path of over 107 bytes), io.
    static Result<Listener> create(const std::string& path);

    Listener(Listener&& other) noexcept
        : socket_(std::move(other.socket_)), path_(std::exchange(other.path_, {})) {}

    Listener& operator=(Listener&&) = delete;

    /// Removes the name.
    ~Listener();

    /// Return: a client, or nothing once `stop` is readable. Errors: io.
    [[nodiscard]] Result<std::optional<platform::FileDescriptor>> accept(int stop);

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    Listener(platform::FileDescriptor socket, std::string path)
        : socket_(std::move(socket)), path_(std::move(path)) {}

    platform::FileDescriptor socket_;
    std::string path_;
};

} // namespace moat::serve
