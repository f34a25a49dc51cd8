// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The handler of SIGSEGV and SIGBUS, which serves accesses to devices' regions and ends guarded
// copies. The program's own handlers get the other faults.
#pragma once

namespace moat::run {

/// Installs the handler, once. From then on, the program's calls of sigaction for these signals
/// change only what other faults are passed to.
void catch_faults();

/// Whether the handler gets this thread's faults: not before catch_faults, nor in a handler of the
/// same signals.
[[nodiscard]] bool catches_faults();

} // namespace moat::run
