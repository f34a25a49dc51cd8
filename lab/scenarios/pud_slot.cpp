// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The PUD slot as a program for the explorer, and as a scenario with parameters.
#include "lab/scenarios/pud_slot.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/scenario.hpp"

#include <algorithm>
#include <string>

namespace moat::scenarios {

namespace pud_slot {

namespace {

[[nodiscard]] std::string decode(std::uint64_t value) {
    switch (value) {
    case none:
        return "PUD NONE";
    case leaf:
        return "PUD LEAF special pfn=0x40000";
    case table:
        return "PUD TABLE";
    default:
        return "PUD ?";
    }
}

[[nodiscard]] std::string role(const char* name, unsigned index, unsigned count) {
    return count == 1 ? std::string(name) : name + std::to_string(index + 1);
}

} // namespace

explore::Program program(const Configuration& configuration) {
    return [configuration](explore::Setup& setup) {
        auto& world = setup.make<World<ExploredSync>>();
        const auto& shared = setup.make<Configuration>(configuration);
        setup.name(&world.slot, "pud", &decode);
        setup.name(&world.lock, "pud lock");
        const auto threads = [&setup](const char* name, unsigned count, auto body) {
            for (unsigned i = 0; i != count; ++i)
                setup.thread(role(name, i, count), body,
                             i == 0 ? explore::Alike::no : explore::Alike::previous);
        };
        threads("walker", shared.walkers,
                [&world, &shared] { walk(world, shared, &ExploredSync::check); });
        threads("faulter", shared.faulters, [&world, &shared] { fault(world, shared); });
        threads("zapper", shared.zappers, [&world, &shared] { zap(world, shared); });
        threads("populator", shared.populators, [&world] { populate(world); });
    };
}

} // namespace pud_slot

namespace {

[[nodiscard]] pud_slot::Configuration read(const Configuration& text) {
    const auto found = std::ranges::find(pud_slot::variant_names, text.at("variant"));
    return {.variant = static_cast<pud_slot::Variant>(found - pud_slot::variant_names.begin()),
            .walkers = number(text, "walkers"),
            .faulters = number(text, "faulters"),
            .zappers = number(text, "zappers"),
            .populators = number(text, "populators"),
            .iterations = number(text, "iterations"),
            .attempts = number(text, "attempts")};
}

[[nodiscard]] std::string scope(const Configuration& text) {
    const pud_slot::Configuration it = read(text);
    return "pud-slot " + std::string(name(it.variant)) + ": " + counted(it.walkers, "walker") +
           " of at most " + counted(it.attempts, "attempt") + ", " +
           counted(it.faulters, "faulter") + " and " + counted(it.zappers, "zapper") + " of " +
           counted(it.iterations, "iteration") + ", " + counted(it.populators, "populator");
}

} // namespace

Scenario pud_slot_scenario() {
    return {
        .name = "pud-slot",
        .summary = "the page-walk race in one PUD slot: walk, fault, zap and populate",
        .parameters =
            {{"variant",
              "snapshot",
              "how the walker checks the entry before it descends",
              {pud_slot::variant_names.begin(), pud_slot::variant_names.end()}},
             {.name = "walkers", .preset = "1", .help = "threads that walk", .most = 4},
             {.name = "faulters",
              .preset = "1",
              .help = "threads that fault the leaf in",
              .most = 4},
             {.name = "zappers", .preset = "0", .help = "threads that zap it", .most = 4},
             {.name = "populators", .preset = "0", .help = "threads that add a table", .most = 2},
             {.name = "iterations",
              .preset = "1",
              .help = "iterations of each faulter and zapper",
              .most = 100},
             {.name = "attempts", .preset = "3", .help = "attempts of each walker", .most = 100}},
        .program = [](const Configuration& text) { return pud_slot::program(read(text)); },
        .scope = &scope};
}

} // namespace moat::scenarios
