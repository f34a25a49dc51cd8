// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A recording as input of a command: read from its beginning, followed, drawn.
#pragma once

#include "command/picture/picture.hpp"
#include "fault/recording.hpp"
#include "watch/follower.hpp"

#include <fstream>
#include <string>

namespace moat::tools {

class RecordingFile {
  public:
    /// Stops the command, as `who`, if `name` cannot be opened.
    RecordingFile(const char* who, const std::string& name);

    [[nodiscard]] fault::RecordingReader& reader() { return reader_; }

  private:
    [[nodiscard]] Result<std::size_t> read(std::span<std::uint8_t> bytes);

    std::ifstream in_;
    fault::RecordingReader reader_;
};

/// Adds `event` with its texts made printable: a recording may be hostile to a terminal.
void follow(watch::Follower& follower, fault::DmaEvent event, watch::FindingSink report);

/// Draws the recording `name`. Return: false after reporting, as `who`, what cannot be written.
[[nodiscard]] bool draw_recording(const char* who, const std::string& name,
                                  const PictureFiles& pictures);

} // namespace moat::tools
