// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The handler of SIGSEGV, which serves accesses to devices' regions. The program's own handler gets
// the others.
#pragma once

namespace moat::run {

/// Installs the handler, once. From then on, the program's calls of sigaction for SIGSEGV change
/// only what other faults are passed to.
void catch_faults();

} // namespace moat::run
