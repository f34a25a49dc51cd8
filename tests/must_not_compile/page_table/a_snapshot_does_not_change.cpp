// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A snapshot is immutable.
#include "tree.hpp"

moat::Word test(Table<2> table) {
    Entry<2> entry = table.load(0);
#ifdef MOAT_CONTROL
    entry = table.load(0);
#else
    entry.word() = 0;
#endif
    return entry.word();
}
