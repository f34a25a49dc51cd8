// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The live table of `moat watch`: a line a device, overwritten each second.
#pragma once

#include "watch/follower.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace moat::tools {

/// "device  driver  live  bytes  maps/s  faults" and a line a device, busiest first, at most
/// `most_lines`; each at most `columns` wide. `before` holds the counts `seconds` ago.
[[nodiscard]] std::vector<std::string>
watch_table(const std::vector<watch::DeviceCounts>& now,
            const std::map<std::string, std::uint64_t>& maps_before, double seconds,
            std::size_t most_lines, std::size_t columns);

/// The sum over all classes.
[[nodiscard]] std::uint64_t faults_of(const watch::DeviceCounts& device);

} // namespace moat::tools
