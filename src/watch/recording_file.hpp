// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A recording in a file: creates it, and writes to it.
#pragma once

#include "moat/core/result.hpp"

#include "fault/recording.hpp"

#include <filesystem>

namespace moat::watch {

/// A writer of a new file, which replaces an old one. `io` if it cannot be created.
[[nodiscard]] Result<fault::RecordingWriter> create_recording(const std::filesystem::path& file,
                                                              fault::Symbolise symbolise);

} // namespace moat::watch
