// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tables are read inside a read section, which a Reader holds.
#include "tree.hpp"

bool test(const moat::PageTable<X86Tree>& page_table) {
#ifdef MOAT_CONTROL
    return page_table.reader().translate(moat::VirtualAddress(0)).has_value();
#else
    return page_table.with_root([](auto root) { return root.load(0).word() != 0; });
#endif
}
