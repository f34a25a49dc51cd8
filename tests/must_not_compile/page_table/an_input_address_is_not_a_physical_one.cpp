// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The two addresses of a mapping cannot be exchanged.
#include "tree.hpp"

bool test(moat::Edit<X86Tree>& edit) {
    const moat::VirtualAddress start(0x1000);
    const moat::PhysicalAddress physical(0x2000);
#ifdef MOAT_CONTROL
    return edit.map(start, moat::ByteCount(4096), physical, moat::read_only).has_value();
#else
    return edit.map(physical, moat::ByteCount(4096), start, moat::read_only).has_value();
#endif
}
