// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An execution as text: one column a thread, decoded values, and marks at a stale read.
// Pure functions of what the machine did. `moat explore` prints it for a violation.
#pragma once

#include "lab/explore/machine.hpp"

#include <cstddef>
#include <optional>
#include <string>

namespace moat::explore {

/// A thread that relied on an old value of a location: its last access before another thread's
/// change, that change, and its next access.
struct StaleRead {
    std::size_t knew = 0;    ///< the thread's last step there before the change
    std::size_t changed = 0; ///< the other thread's step
    std::size_t looked = 0;  ///< the thread's next step there
};

/// The last stale read of the violating thread, or nothing.
[[nodiscard]] std::optional<StaleRead> find_stale_read(const Machine& machine);

/// "load pud = PUD LEAF special pfn=0x40000"
[[nodiscard]] std::string describe_effect(const Machine& machine, const Step& step);

/// All steps of `machine`, and its violation.
[[nodiscard]] std::string timeline(const Machine& machine);

} // namespace moat::explore
