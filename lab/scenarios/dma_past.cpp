// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The DMA API's shipped rings of past mappings under the explorer. The property: the mappings of a
// page enter the index in the order in which threads unmapped them, and none is missed.
#include "lab/scenarios/dma_past_program.hpp"
#include "lab/scenarios/mutants/mutants.hpp"

namespace moat::scenarios {

namespace dma_past {

namespace {

[[nodiscard]] explore::Program program(const Configuration& text) {
    return text.at("variant") == "shipped" ? program_with<ExploredSync>(text)
                                           : mutant_program(text);
}

} // namespace

} // namespace dma_past

Scenario dma_past_scenario() {
    return {.name = "dma-past",
            .summary = "the shipped rings of past mappings: an index gets them in order",
            .parameters = {{.name = "drivers",
                            .preset = "2",
                            .help = "threads that unmap mappings of one page",
                            .most = 3},
                           {.name = "queries",
                            .preset = "1",
                            .help = "threads that take the entries over into an index",
                            .most = 2},
                           {.name = "turns",
                            .preset = "1",
                            .help = "mappings that each driver unmaps",
                            .most = 2},
                           {.name = "capacity",
                            .preset = "4",
                            .help = "mappings that a ring holds, from 1 on",
                            .most = 4},
                           {.name = "variant",
                            .preset = "shipped",
                            .help = "the shipped rings, or a mutant that breaks one rule",
                            .values = {"shipped", "stamp-ignored", "round-kept", "lost-kept",
                                       "notes-uncounted"}}},
            .program = &dma_past::program,
            .scope = [](const Configuration& text) {
                return "dma-past " + text.at("variant") + ": " +
                       counted(number(text, "drivers"), "driver") + " that unmap " +
                       counted(number(text, "turns"), "mapping") + " of one page each, rings of " +
                       text.at("capacity") + ", " + counted(number(text, "queries"), "query");
            }};
}

} // namespace moat::scenarios
