// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device's address is not a memory address, although both are 64-bit numbers.
#include "moat/core/range.hpp"

bool reaches(moat::IovaRange mapped, moat::Iova asked) {
    return mapped.contains(asked);
}

bool test(moat::IovaRange mapped) {
#ifdef MOAT_CONTROL
    return reaches(mapped, moat::Iova(0x1000));
#else
    return reaches(mapped, moat::PhysicalAddress(0x1000));
#endif
}
