// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kernel's bug: it tests one load of an entry, and descends through another.
#include "tree.hpp"

bool test(Table<2> table) {
    if (table.load(0).kind() != moat::EntryKind::table)
        return false;
#ifdef MOAT_CONTROL
    return table.load(0).match([] { return false; }, [](Leaf<2>) { return false; },
                               [](Table<1>) { return true; });
#else
    return table.load(0).below().load(0).kind() == moat::EntryKind::table;
#endif
}
