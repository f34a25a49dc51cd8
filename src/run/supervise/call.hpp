// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Answers the system calls that stop for the supervisor, where they concern VFIO.
#pragma once

#include "run/supervise/open_files.hpp"
#include "run/supervise/stopped_thread.hpp"
#include "run/supervise/traced_program.hpp"

namespace moat::run {

/// `thread`, of `program`, stands before a system call. Changes the call's result, or leaves the
/// call to the kernel. New descriptors begin at `first_descriptor`.
void serve_call(StoppedThread& thread, TracedProgram& program, OpenFiles& files,
                int first_descriptor);

} // namespace moat::run
