// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A leaf has a physical address, but no table below it.
#include "tree.hpp"

unsigned test(Table<2> table) {
    return table.load(0).match([] { return 0U; },
                               [](Leaf<2> leaf) {
#ifdef MOAT_CONTROL
                                   return leaf.size_lg2();
#else
                                   return leaf.below().load(0).kind() == moat::EntryKind::leaf ? 1U
                                                                                               : 0U;
#endif
                               },
                               [](Table<1>) { return 1U; });
}
