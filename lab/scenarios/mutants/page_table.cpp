// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The page-table scenario over mutated copies of include/moat/page_table.
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"
#include "lab/scenarios/page_table_program.hpp"

namespace moat::scenarios::page_table {

explore::Program mutant_program(const Configuration& configuration) {
    const std::string& variant = configuration.at("variant");
    return with_mutation(variant, variant == "read-after-free"
                                      ? program_with<MutatedSync, AwaitedBreakVtd>(configuration)
                                      : program_with<MutatedSync>(configuration));
}

} // namespace moat::scenarios::page_table
