// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped grace periods of RealSync under the explorer: no reader follows a pointer to a freed
// node, while idle readers leave the list and return. The program is in readers_program.hpp.
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/readers_program.hpp"

namespace moat::scenarios {

namespace grace_periods {

namespace {

[[nodiscard]] explore::Program program(const Configuration& text) {
    return text.at("variant") == "shipped" ? program_with<ExploredSync>(text)
                                           : mutant_program(text);
}

} // namespace

} // namespace grace_periods

Scenario readers_scenario() {
    return {
        .name = "readers",
        .summary = "the shipped read sections and grace periods: no use after free",
        .parameters =
            {{.name = "readers", .preset = "1", .help = "threads that read", .most = 2},
             {.name = "reclaimers",
              .preset = "1",
              .help = "threads that each unlink and free a node",
              .most = 2},
             {.name = "waits",
              .preset = "0",
              .help = "grace periods of a reclaimer before it unlinks",
              .most = 2},
             {.name = "sections", .preset = "2", .help = "sections of a reader", .most = 3},
             {.name = "slots",
              .preset = "dormant",
              .help = "whether grace periods visit the readers' slots at first",
              .values = {"dormant", "listed"}},
             {.name = "variant",
              .preset = "shipped",
              .help = "the shipped protocol, or a mutant that breaks one rule",
              .values = {"shipped", "enter-by-store", "look-by-load", "leave-relaxed", "met-first",
                         "reader-unmet", "reclaimer-unmet", "listed-unlocked", "removed-open"}}},
        .program = &grace_periods::program,
        .scope = [](const Configuration& text) {
            return "readers " + text.at("variant") + ": " +
                   counted(number(text, "readers"), "reader") + " of " +
                   counted(number(text, "sections"), "section") + ", slots " + text.at("slots") +
                   " at first; " + counted(number(text, "reclaimers"), "reclaimer") + " of " +
                   counted(number(text, "waits") + 1, "grace period");
        }};
}

} // namespace moat::scenarios
