// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Small files of tracefs, sysfs and procfs, read and written whole.
#pragma once

#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::watch {

/// The text of a file; nothing if it cannot be read.
[[nodiscard]] std::optional<std::string> read_file(const std::filesystem::path& file);

/// The same without a line end; empty if it cannot be read.
[[nodiscard]] std::string read_line(const std::filesystem::path& file);

/// Writes `text` in one call. Appends: truncating dynamic_events would remove everyone's probes.
/// Return: 0 or errno.
[[nodiscard]] int write_file(const std::filesystem::path& file, std::string_view text);

/// The names in a folder, sorted; none if it cannot be read.
[[nodiscard]] std::vector<std::string> names_in(const std::filesystem::path& folder);

/// Where tracefs is mounted; the error says how to mount it or that root is needed.
[[nodiscard]] std::expected<std::filesystem::path, std::string>
find_tracefs(const std::filesystem::path& root);

/// Why the kernel refused to trace, and what to do. `what`: "cannot create /sys/...".
[[nodiscard]] std::string refusal(const std::filesystem::path& root, const std::string& what,
                                  int error_number);

} // namespace moat::watch
