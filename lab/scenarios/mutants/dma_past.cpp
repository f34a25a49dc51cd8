// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The dma-past scenario over a mutated copy of include/moat/dma.
#include "lab/scenarios/dma_past_program.hpp"
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"

namespace moat::scenarios::dma_past {

explore::Program mutant_program(const Configuration& configuration) {
    return with_mutation(configuration.at("variant"), program_with<MutatedSync>(configuration));
}

} // namespace moat::scenarios::dma_past
