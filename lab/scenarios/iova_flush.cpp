// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped flush queue of the IOVA allocator under the explorer. The properties: a range is
// released after an invalidation that began after its push, and the timer leaves none behind. The
// programs are in iova_flush_program.hpp; iova.cpp explores the whole allocator.
#include "lab/scenarios/iova_flush_program.hpp"
#include "lab/scenarios/mutants/mutants.hpp"

namespace moat::scenarios {

namespace iova_flush {

namespace {

[[nodiscard]] explore::Program program(const Configuration& text) {
    const std::string& variant = text.at("variant");
    if (variant == "unlocked")
        return program_with<iova_syncs::Unlocked>(text);
    return variant == "shipped" ? program_with<iova_syncs::Small>(text) : mutant_program(text);
}

} // namespace

} // namespace iova_flush

Scenario iova_flush_scenario() {
    return {.name = "iova-flush",
            .summary = "the shipped flush queue: no range is released before its invalidation",
            .parameters =
                {{.name = "queuers", .preset = "1", .help = "threads that queue ranges", .most = 4},
                 {.name = "ranges",
                  .preset = "1",
                  .help = "ranges that each of them queues",
                  .most = 5},
                 {.name = "flushers", .preset = "1", .help = "threads that flush", .most = 3},
                 {.name = "alarms",
                  .preset = "0",
                  .help = "how often the timer fires at most while they run",
                  .most = 2},
                 {.name = "variant",
                  .preset = "shipped",
                  .help = "the shipped queue, or a mutant that breaks one rule",
                  .values = {"shipped", "unlocked", "queued-unordered", "taken-late", "half-a-ring",
                             "room-uncounted", "abandoned-unordered", "one-look"}}},
            .program = &iova_flush::program,
            .scope = [](const Configuration& text) {
                return "iova-flush " + text.at("variant") + ": " +
                       counted(number(text, "queuers"), "queuer") + " of " +
                       counted(number(text, "ranges"), "range") + " each, " +
                       counted(number(text, "flushers"), "flusher") + ", " +
                       counted(number(text, "alarms"), "alarm") + ", lanes of two ranges";
            }};
}

} // namespace moat::scenarios
