// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The seccomp filter of a supervised program: which system calls stop for the supervisor. All
// others run at full speed.
#pragma once

#include <expected>
#include <linux/filter.h>
#include <string>
#include <vector>

namespace moat::run {

/// The number that descriptors of VFIO begin with, high in the limit of descriptors: a filter can
/// tell them from the program's other ones.
[[nodiscard]] int first_vfio_descriptor();

/// Lets these calls of this process, and of what it becomes, stop for its tracer: all that open a
/// path, or that take one, if `all_paths`; ioctls of VFIO and iommufd; reads, writes, maps and
/// duplicates of descriptors from `first_descriptor` on; and the process's exit. Error: why the
/// machine refused.
[[nodiscard]] std::expected<void, std::string> stop_at_calls(int first_descriptor, bool all_paths);

/// A further filter, by which the calls on one more descriptor stop: one that the program chose.
[[nodiscard]] std::vector<sock_filter> filter_of(int descriptor);

} // namespace moat::run
