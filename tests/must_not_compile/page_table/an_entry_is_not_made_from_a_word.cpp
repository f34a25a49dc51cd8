// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A snapshot comes from a load, never from a given word.
#include "tree.hpp"

Entry<2> test(Table<2> table, Pool& pool) {
#ifdef MOAT_CONTROL
    (void)pool;
    return table.load(0);
#else
    (void)table;
    return Entry<2>(moat::Word{0x1001}, &pool);
#endif
}
