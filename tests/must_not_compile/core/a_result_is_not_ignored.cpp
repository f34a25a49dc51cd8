// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An ignored failure.
#include "moat/core/range.hpp"

void test() {
#ifdef MOAT_CONTROL
    (void)moat::IovaRange::make(moat::Iova(0), moat::ByteCount(1)).has_value();
#else
    moat::IovaRange::make(moat::Iova(0), moat::ByteCount(1));
#endif
}
