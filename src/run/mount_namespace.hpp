// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A private mount namespace in which the soft devices' /sys and /dev replace the machine's own.
#pragma once

#include <expected>
#include <string>

namespace moat::run {

/// Whether this machine lets this user have one: a child process tries it.
[[nodiscard]] bool can_mount(const std::string& folder);

/// Enters a namespace of its own, and puts what write_sysfs_tree wrote to `folder` in place. The
/// user stays who it is. Call it in a new process with one thread. Error: the step that failed;
/// the process is unfit then.
[[nodiscard]] std::expected<void, std::string> enter_mount_namespace(const std::string& folder);

} // namespace moat::run
