// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A load or store of a device's region, which stopped the thread with SIGBUS.
#pragma once

#include "run/supervise/open_files.hpp"
#include "run/supervise/stopped_thread.hpp"
#include "run/supervise/traced_program.hpp"

#include <cstdint>

namespace moat::run {

/// Return: whether the access that faulted at `address` is done; false if it is the program's own
/// fault.
[[nodiscard]] bool serve_access(StoppedThread& thread, TracedProgram& program,
                                const OpenFiles& files, std::uint64_t address);

} // namespace moat::run
