// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped address space under the explorer, as a scenario: which case, and which variant of the
// code: the right one, or one with a step left out.
#include "lab/scenarios/mm/cases.hpp"
#include "lab/scenarios/mm/dma_map.hpp"
#include "lab/scenarios/scenario.hpp"

#include <string>
#include <string_view>

namespace moat::scenarios {

namespace {

using namespace space;

/// A walk's case, with the way to look again that the variant names.
template <class Call>
void with_look_again(std::string_view variant, Call&& call) {
    if (variant == "old")
        call.template operator()<OldLook>();
    else if (variant == "two-load")
        call.template operator()<TwoLoads>();
    else if (variant == "two-load-reversed")
        call.template operator()<TwoLoadsReversed>();
    else if (variant == "reload")
        call.template operator()<Reload>();
    else if (variant == "sticky-action")
        call.template operator()<StickyAction>();
    else if (variant == "unbounded-retry")
        call.template operator()<UnboundedRetry>();
    else
        call.template operator()<LookAgain>();
}

[[nodiscard]] Beside beside(std::string_view which) {
    if (which == "container-read")
        return Beside::reader;
    return which == "container-all" ? Beside::all : Beside::zapper;
}

void set_up(explore::Setup& setup, std::string_view which, std::string_view variant) {
    const bool right = variant == "right";
    if (which == "T1" || which == "T2" || which == "T3")
        with_look_again(variant, [&]<class Again>() {
            walker_beside<ExploredRules, Again>(setup, which != "T1");
        });
    else if (which == "T4" || which == "T6")
        with_look_again(variant, [&]<class Again>() {
            walker_and_refaults<ExploredRules, Again>(setup, which == "T4" ? 1 : retries + 2);
        });
    else if (which == "T5")
        installer_beside<ExploredRules>(setup, !right);
    else if (which == "T7")
        mapper_beside<ExploredRules>(setup, variant);
    else if (which == "T8")
        right ? neighbour_unmapped<ExploredRules>(setup, true)
              : neighbour_unmapped<FreesSharedTable>(setup, false);
    else if (which == "T9")
        right ? table_is_absorbing<ExploredRules>(setup) : table_is_absorbing<TableGoes>(setup);
    else if (which == "unmap")
        right ? fault_beside_unmap<ExploredRules>(setup) : fault_beside_unmap<Unasked>(setup);
    else if (which == "reuse")
        right ? reuse_after_invalidation<ExploredRules>(setup)
              : reuse_after_invalidation<ReusesFirst>(setup);
    else if (which == "pte")
        right ? pte_table_goes<ExploredRules>(setup) : pte_table_goes<LooksBeforeLock>(setup);
    else if (which == "readers")
        right ? all_together<ExploredRules>(setup) : all_together<RevokesAfterZap>(setup);
    else if (which.starts_with("container"))
        right ? container_beside<ExploredRules>(setup, beside(which))
              : container_beside<Untold>(setup, beside(which));
    else
        right ? revoked_beside<ExploredRules>(setup) : revoked_beside<RevokesAfterZap>(setup);
}

/// Which variants a case has beside the right one; any other is the right one there.
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
                return [which = text.at("case"), variant = text.at("variant")](
                           explore::Setup& setup) { set_up(setup, which, variant); };
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
