// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The handler of SIGSEGV and SIGBUS, which serves accesses to devices' regions and ends guarded
// copies. The program's own handlers get the other faults.
#pragma once

#include <atomic>

namespace moat::run {

/// Installs the handler, once. From then on, the program's calls of sigaction for these signals
/// change only what other faults are passed to.
void catch_faults();

namespace faults {

extern constinit std::atomic<bool> caught;
/// Whether this thread may be in the program's handler of a fault signal, which blocks it. A
/// handler that leaves by a jump leaves it set.
extern constinit thread_local bool maybe_blocked;
[[nodiscard]] bool are_not_blocked();

} // namespace faults

/// Whether the handler gets this thread's faults: not before catch_faults, nor in a handler of the
/// same signals.
[[nodiscard]] inline bool catches_faults() {
    return faults::maybe_blocked ? faults::are_not_blocked()
                                 : faults::caught.load(std::memory_order_acquire);
}

} // namespace moat::run
