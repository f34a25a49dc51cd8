// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped address space under the explorer, as a scenario: the case, and the variant of the
// code, which is the right one or one with a step left out.
#include "lab/scenarios/mm/cases.hpp"
#include "lab/scenarios/mm/dma_map.hpp"
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/scenario.hpp"

#include <string>
#include <string_view>

namespace moat::scenarios {

namespace {

using namespace space;

/// The shipped headers. The broken variants of T5 and T7 are ways to use them.
void set_up_shipped(explore::Setup& setup, std::string_view which, std::string_view variant) {
    using Sync = ExploredSync;
    if (which == "T1" || which == "T2" || which == "T3")
        walker_beside<Sync>(setup, which != "T1");
    else if (which == "T4" || which == "T6")
        walker_and_refaults<Sync>(setup, which == "T4" ? 1 : retries + 2);
    else if (which == "T5")
        installer_beside<Sync>(setup, variant == "look-again");
    else if (which == "T7")
        mapper_beside<Sync>(setup, variant);
    else if (which == "T8")
        neighbour_unmapped<Sync>(setup, true);
    else if (which == "T9")
        table_is_absorbing<Sync>(setup, true);
    else if (which == "unmap")
        fault_beside_unmap<Sync>(setup);
    else if (which == "reuse")
        reuse_after_invalidation<Sync>(setup);
    else if (which == "pte")
        pte_table_goes<Sync>(setup);
    else if (which == "readers")
        all_together<Sync>(setup);
    else if (which.starts_with("container"))
        container_beside<Sync>(setup, beside(which));
    else
        revoked_beside<Sync>(setup);
}

/// The broken variants of a case. Any other variant is the right one there.
[[nodiscard]] std::string_view variants_of(std::string_view which) {
    if (which == "T1" || which == "T2" || which == "T3")
        return "old two-load two-load-reversed reload";
    if (which == "T4")
        return "sticky-action";
    if (which == "T5" || which == "T7")
        return which == "T5" ? "look-again" : "look-again maps-late";
    if (which == "T6")
        return "unbounded-retry";
    if (which == "T8")
        return "frees-shared-table";
    if (which == "T9")
        return "table-goes";
    if (which == "unmap")
        return "unasked";
    if (which == "reuse")
        return "reuses-first";
    if (which.starts_with("container"))
        return "untold";
    return which == "pte" ? "looks-before-lock" : "revokes-after-zap";
}

[[nodiscard]] std::string_view effective(std::string_view which, std::string_view variant) {
    return variants_of(which).find(variant) == std::string_view::npos ? "right" : variant;
}

void set_up(explore::Setup& setup, std::string_view which, std::string_view variant) {
    if (variant == "right" || which == "T5" || which == "T7")
        set_up_shipped(setup, which, variant);
    else
        set_up_mutant(setup, which, variant);
}

} // namespace

Scenario address_space_scenario() {
    Parameter which = {
        .name = "case",
        .preset = "T1",
        .help = "T1 a refault, T2 T3 and a zap, T4 visited once, T5 installing walk, T6 bounded "
                "retries, T7 DMA map, T8 a neighbour, T9 a table stays; and more of the "
                "protocol; container: VFIO's DMA map beside a revocation",
        .values = {"T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "unmap", "reuse", "pte",
                   "revoke", "readers", "container", "container-read", "container-all"}};
    Parameter variant = {.name = "variant",
                         .preset = "right",
                         .help = "the shipped code, or one with a step left out",
                         .values = {"right", "old", "two-load", "two-load-reversed", "reload",
                                    "sticky-action", "unbounded-retry", "look-again", "maps-late",
                                    "frees-shared-table", "table-goes", "unasked", "reuses-first",
                                    "looks-before-lock", "revokes-after-zap", "untold"}};
    return {.name = "address-space",
            .summary = "the shipped address space: walks, faults, zaps, DMA maps and revocation",
            .parameters = {std::move(which), std::move(variant)},
            .program = [](const Configuration& text) -> explore::Program {
                const std::string& name = text.at("case");
                const std::string chosen(effective(name, text.at("variant")));
                return [name, chosen](explore::Setup& setup) { set_up(setup, name, chosen); };
            },
            .scope =
                [](const Configuration& text) {
                    const std::string_view is = effective(text.at("case"), text.at("variant"));
                    return "address-space " + text.at("case") + ", " + std::string(is) +
                           ", RISC-V Sv39; each thread once, " + counted(retries, "retry") +
                           " before the lock";
                }};
}

} // namespace moat::scenarios
