// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What this host knows of its devices and addresses, for `moat explain --here`.
#pragma once

#include "moat/core/result.hpp"

#include "fault/log_context.hpp"

#include <filesystem>
#include <string>

namespace moat::tools {

/// The kernel's log, as dmesg prints it. `refused` without the right to read it.
[[nodiscard]] Result<std::string> kernel_log();

/// Adds the PCI functions, reserved ranges and physical memory that `root` (/sys and /proc below
/// it) shows. Leaves out what it cannot read.
void add_this_host(fault::LogContext& context, const std::filesystem::path& root = "/");

} // namespace moat::tools
