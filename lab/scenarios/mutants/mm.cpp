// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The cases of the address-space scenario over mutated copies of include/moat/mm.
#include "lab/scenarios/mm/cases.hpp"
#include "lab/scenarios/mm/dma_map.hpp"
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"

namespace moat::scenarios::space {

void set_up_mutant(explore::Setup& setup, std::string_view which, std::string_view variant) {
    MutatedSync::broken = variant;
    if (which == "T1" || which == "T2" || which == "T3")
        walker_beside<MutatedSync>(setup, which != "T1");
    else if (which == "T4")
        walker_and_refaults<MutatedSync>(setup, 1);
    else if (which == "T6")
        walker_and_refaults<MutatedSync>(setup, unbounded);
    else if (which == "T8")
        neighbour_unmapped<MutatedSync>(setup, false);
    else if (which == "T9")
        table_is_absorbing<MutatedSync>(setup, false);
    else if (which == "unmap")
        fault_beside_unmap<MutatedSync>(setup);
    else if (which == "reuse")
        reuse_after_invalidation<MutatedSync>(setup);
    else if (which == "pte")
        pte_table_goes<MutatedSync>(setup);
    else if (which == "readers")
        all_together<MutatedSync>(setup);
    else if (which == "revoke")
        revoked_beside<MutatedSync>(setup);
    else
        container_beside<MutatedSync>(setup, beside(which));
}

} // namespace moat::scenarios::space
