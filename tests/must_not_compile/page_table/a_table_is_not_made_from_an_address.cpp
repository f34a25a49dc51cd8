// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The race in one line: a table made from a physical address that was a table's a moment ago.
#include "tree.hpp"

bool test(Table<2> table, Pool& pool) {
    const Entry<2> entry = table.load(0);
#ifdef MOAT_CONTROL
    (void)pool;
    return entry.match(
        [] { return false; }, [](auto) { return false; },
        [](Table<1> below) { return below.load(0).kind() != moat::EntryKind::absent; });
#else
    const Table<1> below(pool.words(moat::PhysicalAddress(X86::table_physical<2>(entry.word()))),
                         &pool);
    return below.load(0).kind() != moat::EntryKind::absent;
#endif
}
