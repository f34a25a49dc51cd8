// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Only an EntryWriter changes entries, and only an Edit has one.
#include "tree.hpp"

void test(Table<2> table, moat::PageTable<X86Tree>& page_table) {
#ifdef MOAT_CONTROL
    (void)table;
    auto ignore = [](const moat::InvalidationRequest<moat::VirtualAddress>&) {};
    auto edit = page_table.edit(ignore);
    (void)edit.unmap(moat::VirtualAddress(0), moat::ByteCount(4096)).has_value();
    edit.finish();
#else
    (void)page_table;
    const moat::EntryWriter<X86Tree> writer;
    writer.store(table, 0, 0);
#endif
}
