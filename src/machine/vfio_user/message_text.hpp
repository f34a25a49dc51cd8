// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Messages as lines of text: a capture of a connection, for people and for replay. Descriptors are
// counted, not kept. docs/recording_format.md describes the lines.
#pragma once

#include "moat/core/result.hpp"

#include "machine/vfio_user/protocol.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moat::machine::vfio_user {

/// The first line of a capture.
inline constexpr std::string_view capture_title = "moat-messages 1";
/// The line before the messages of a connection.
inline constexpr std::string_view capture_connection = "connection";

struct CapturedMessage {
    Role from = Role::client; ///< who sent it
    Header header = {};       ///< with the size of the message
    std::size_t descriptors = 0;
    std::vector<std::byte> body = {};
};

/// A line without its end.
[[nodiscard]] std::string line_of(Role from, const Header& header, std::size_t descriptors,
                                  std::span<const std::byte> body);

/// The message of a line. Errors: out_of_range (no such line).
[[nodiscard]] Result<CapturedMessage> message_of(std::string_view line);

} // namespace moat::machine::vfio_user
