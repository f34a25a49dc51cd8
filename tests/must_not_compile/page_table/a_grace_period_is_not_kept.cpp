// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A grace period of an earlier invalidation does not free the tables of a later one.
#include "tree.hpp"

void test(moat::PageTable<X86Tree>& page_table) {
#ifdef MOAT_CONTROL
    auto wait = [](const moat::InvalidationRequest<moat::VirtualAddress>&) {
        return moat::GracePeriod<moat::SerialSync>();
    };
#else
    moat::GracePeriod<moat::SerialSync> earlier;
    auto wait = [&](const moat::InvalidationRequest<moat::VirtualAddress>&) { return earlier; };
#endif
    auto edit = page_table.edit(wait);
    edit.finish();
}
