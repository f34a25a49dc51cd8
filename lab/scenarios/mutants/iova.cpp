// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The iova scenario over mutated copies of include/moat/iova.
#include "lab/scenarios/iova_program.hpp"
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"

namespace moat::scenarios::iova_allocator {

explore::Program mutant_program(const Configuration& configuration) {
    const std::string& variant = configuration.at("variant");
    if (variant == "special-unasked")
        return program_with<MutatedSync<"special-unasked">>(configuration);
    if (variant == "special-lost")
        return program_with<MutatedSync<"special-lost">>(configuration);
    MOAT_CHECK(variant == "wish-unasked", "every variant is known");
    return program_with<MutatedSync<"wish-unasked">>(configuration);
}

} // namespace moat::scenarios::iova_allocator
