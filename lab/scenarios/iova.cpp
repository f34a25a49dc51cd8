// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped IOVA allocator under the explorer, with small caches. The properties: a page has one
// owner, guards have none, a range lies where it was wanted, and in the end the whole space is
// free. The programs are in iova_program.hpp.
#include "lab/scenarios/iova_program.hpp"
#include "lab/scenarios/mutants/mutants.hpp"

namespace moat::scenarios {

namespace iova_allocator {

namespace {

[[nodiscard]] explore::Program program(const Configuration& text) {
    const std::string& variant = text.at("variant");
    if (variant == "unlocked")
        return program_with<iova_syncs::Unlocked>(text);
    if (variant == "no-exit-hook")
        return program_with<iova_syncs::NoExitHook>(text);
    if (variant == "nobody-visited")
        return program_with<iova_syncs::NobodyVisited>(text);
    return variant == "shipped" ? program_with<iova_syncs::Small>(text) : mutant_program(text);
}

} // namespace

} // namespace iova_allocator

Scenario iova_scenario() {
    return {
        .name = "iova",
        .summary = "the shipped IOVA allocator: each page has one owner, and none is lost",
        .parameters = {{.name = "case",
                        .preset = "remote",
                        .help = "what the threads do",
                        .values = {"remote", "exit", "deferred", "drain", "quarantine", "mixed"}},
                       {.name = "range",
                        .preset = "small",
                        .help = "one page; two, which no magazine holds; one, aligned to two",
                        .values = {"small", "large", "aligned"}},
                       {.name = "variant",
                        .preset = "shipped",
                        .help = "the shipped allocator, or a mutant that breaks one rule",
                        .values = {"shipped", "unlocked", "no-exit-hook", "nobody-visited",
                                   "special-unasked", "special-lost", "wish-unasked"}}},
        .program = &iova_allocator::program,
        .scope = [](const Configuration& text) {
            return "iova " + text.at("variant") + ", case " + text.at("case") + ", range " +
                   text.at("range") +
                   ": 2 threads of two operations each, magazines of 2, 512 pages";
        }};
}

} // namespace moat::scenarios
