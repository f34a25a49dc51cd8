// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The iova-flush scenario over mutated copies of include/moat/iova.
#include "lab/scenarios/iova_flush_program.hpp"
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"

namespace moat::scenarios::iova_flush {

explore::Program mutant_program(const Configuration& configuration) {
    return with_mutation(configuration.at("variant"), program_with<MutatedSync>(configuration));
}

} // namespace moat::scenarios::iova_flush
