// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The PUD slot as a program for the explorer. The protocol itself is in pud_slot.hpp.
// Used by `moat explore pud-slot`, the tests and the benchmark.
#pragma once

#include "moat/explore/explored_sync.hpp"
#include "moat/explore/program.hpp"

#include "pud_slot.hpp"

#include <string>

namespace moat::scenarios::pud_slot {

[[nodiscard]] inline std::string decode(std::uint64_t value) {
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

[[nodiscard]] inline explore::Program program(const Configuration& configuration) {
    return [configuration](explore::Setup& setup) {
        auto& world = setup.make<World<ExploredSync>>();
        const auto& shared = setup.make<Configuration>(configuration);
        setup.name(&world.slot, "pud", &decode);
        setup.name(&world.lock, "pud lock");
        const auto named = [](const char* role, unsigned i, unsigned count) {
            return count == 1 ? std::string(role) : role + std::to_string(i + 1);
        };
        for (unsigned i = 0; i != shared.walkers; ++i)
            setup.thread(named("walker", i, shared.walkers),
                         [&world, &shared] { walk(world, shared, &ExploredSync::check); });
        for (unsigned i = 0; i != shared.faulters; ++i)
            setup.thread(named("faulter", i, shared.faulters),
                         [&world, &shared] { fault(world, shared); });
        for (unsigned i = 0; i != shared.zappers; ++i)
            setup.thread(named("zapper", i, shared.zappers),
                         [&world, &shared] { zap(world, shared); });
        for (unsigned i = 0; i != shared.populators; ++i)
            setup.thread(named("populator", i, shared.populators), [&world] { populate(world); });
    };
}

} // namespace moat::scenarios::pud_slot
