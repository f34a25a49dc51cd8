// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The readers scenario over a mutated copy of include/moat/sync/readers.hpp.
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"
#include "lab/scenarios/readers_program.hpp"

namespace moat::scenarios::grace_periods {

explore::Program mutant_program(const Configuration& configuration) {
    return with_mutation(configuration.at("variant"), program_with<MutatedSync>(configuration));
}

} // namespace moat::scenarios::grace_periods
