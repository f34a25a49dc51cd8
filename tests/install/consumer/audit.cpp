// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A user's program of a room that depends on other rooms: it links only if moat.pc lists the
// libraries in link order.
#include "audit/subject.hpp"

#include <iostream>

int main() {
    const auto subject = moat::audit::Subject::start(moat::audit::kinds().front(), {});
    const auto report = moat::audit::audit_function((*subject)->machine(), (*subject)->address(),
                                                    (*subject)->options());
    std::cout << report->tally.cases << " operations\n";
    return report->tally.cases != 0 && report->findings.empty() ? 0 : 1;
}
