// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MessageCapture: writes the messages of a client's connections to a file, as lines of text.
#pragma once

#include "machine/vfio_user/channel.hpp"

#include <fstream>
#include <string>

namespace moat::serve {

/// Used by one thread. Once the file cannot be written, nothing follows.
class MessageCapture final : public machine::vfio_user::Channel::Observer {
  public:
    /// Creates `path`; an empty one captures nothing.
    explicit MessageCapture(const std::string& path);

    /// Captures the messages of the server's channel to a client. Outlives it.
    void follow(machine::vfio_user::Channel& channel);

  private:
    void sent(const machine::vfio_user::Header& header, std::span<const std::byte> body,
              std::size_t descriptors) override;
    void received(const machine::vfio_user::Header& header, std::span<const std::byte> body,
                  std::size_t descriptors) override;

    std::ofstream file_;
};

} // namespace moat::serve
