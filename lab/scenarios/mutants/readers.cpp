// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The readers scenario over a mutated copy of include/moat/sync/readers.hpp.
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"
#include "lab/scenarios/readers_program.hpp"

namespace moat::scenarios::grace_periods {

explore::Program mutant_program(const Configuration& configuration) {
    const std::string& variant = configuration.at("variant");
    if (variant == "enter-by-store")
        return program_with<MutatedSync<"enter-by-store">>(configuration);
    if (variant == "look-by-load")
        return program_with<MutatedSync<"look-by-load">>(configuration);
    if (variant == "leave-relaxed")
        return program_with<MutatedSync<"leave-relaxed">>(configuration);
    if (variant == "met-first")
        return program_with<MutatedSync<"met-first">>(configuration);
    if (variant == "reader-unmet")
        return program_with<MutatedSync<"reader-unmet">>(configuration);
    if (variant == "reclaimer-unmet")
        return program_with<MutatedSync<"reclaimer-unmet">>(configuration);
    if (variant == "listed-unlocked")
        return program_with<MutatedSync<"listed-unlocked">>(configuration);
    MOAT_CHECK(variant == "removed-open", "every variant is known");
    return program_with<MutatedSync<"removed-open">>(configuration);
}

} // namespace moat::scenarios::grace_periods
