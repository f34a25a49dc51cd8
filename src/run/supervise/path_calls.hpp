// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The system calls that take a path, and where the paths of /sys and /dev lead if no mount
// namespace shows the soft devices' files.
#pragma once

#include "run/options.hpp"

#include <array>
#include <optional>
#include <string>
#include <sys/syscall.h>

namespace moat::run {

inline constexpr int no_folder = -1;

struct PathCall {
    long call;
    int folder;    ///< the argument that a path starts from, a descriptor; or no_folder
    unsigned path; ///< the argument
    bool opens;
};

inline constexpr std::array<PathCall, 13> path_calls = {{{SYS_open, no_folder, 0, true},
                                                         {SYS_openat, 0, 1, true},
                                                         {SYS_openat2, 0, 1, true},
                                                         {SYS_stat, no_folder, 0, false},
                                                         {SYS_lstat, no_folder, 0, false},
                                                         {SYS_newfstatat, 0, 1, false},
                                                         {SYS_statx, 0, 1, false},
                                                         {SYS_access, no_folder, 0, false},
                                                         {SYS_faccessat, 0, 1, false},
                                                         {SYS_faccessat2, 0, 1, false},
                                                         {SYS_readlink, no_folder, 0, false},
                                                         {SYS_readlinkat, 0, 1, false},
                                                         {SYS_chdir, no_folder, 0, false}}};

/// `path`, absolute, without the folder in which the soft devices' files lie.
[[nodiscard]] std::string seen_path(const std::string& path, const Options& options);

/// Where `path`, a seen one, is looked up; nothing if that is where it says.
[[nodiscard]] std::optional<std::string> redirected_path(const std::string& path,
                                                         const Options& options);

} // namespace moat::run
