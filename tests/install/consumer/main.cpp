// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A user's program against the installed moat.
#include "moat/core/text.hpp"
#include "moat/sync/real.hpp"

#include <iostream>

int main() {
    const moat::RealSync::ReadSection reading;
    const auto range = moat::IovaRange::make(moat::Iova(0x1000), moat::ByteCount(0x2000));
    std::cout << *range << '\n';
    return range->last() == moat::Iova(0x2fff) ? 0 : 1;
}
