// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The cases of the address-space scenario over mutated copies of include/moat/mm.
#include "lab/scenarios/mm/cases.hpp"
#include "lab/scenarios/mm/dma_map.hpp"
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"

namespace moat::scenarios::space {

namespace {

void set_up_walk(explore::Setup& setup, bool zaps, std::string_view variant) {
    if (variant == "old")
        walker_beside<MutatedSync<"old">>(setup, zaps);
    else if (variant == "two-load")
        walker_beside<MutatedSync<"two-load">>(setup, zaps);
    else if (variant == "two-load-reversed")
        walker_beside<MutatedSync<"two-load-reversed">>(setup, zaps);
    else
        walker_beside<MutatedSync<"reload">>(setup, zaps);
}

} // namespace

void set_up_mutant(explore::Setup& setup, std::string_view which, std::string_view variant) {
    if (which == "T1" || which == "T2" || which == "T3")
        set_up_walk(setup, which != "T1", variant);
    else if (which == "T4")
        walker_and_refaults<MutatedSync<"sticky-action">>(setup, 1);
    else if (which == "T6")
        walker_and_refaults<MutatedSync<"unbounded-retry">>(setup, unbounded);
    else if (which == "T8")
        neighbour_unmapped<MutatedSync<"frees-shared-table">>(setup, false);
    else if (which == "T9")
        table_is_absorbing<MutatedSync<"table-goes">>(setup, false);
    else if (which == "unmap")
        fault_beside_unmap<MutatedSync<"unasked">>(setup);
    else if (which == "reuse")
        reuse_after_invalidation<MutatedSync<"reuses-first">>(setup);
    else if (which == "pte")
        pte_table_goes<MutatedSync<"looks-before-lock">>(setup);
    else if (which == "readers")
        all_together<MutatedSync<"revokes-after-zap">>(setup);
    else if (which == "revoke")
        revoked_beside<MutatedSync<"revokes-after-zap">>(setup);
    else
        container_beside<MutatedSync<"untold">>(setup, beside(which));
}

} // namespace moat::scenarios::space
