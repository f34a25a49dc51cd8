// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The page-table scenario over mutated copies of include/moat/page_table.
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"
#include "lab/scenarios/page_table_program.hpp"

namespace moat::scenarios::page_table {

explore::Program mutant_program(const Configuration& configuration) {
    const std::string& variant = configuration.at("variant");
    if (variant == "never-invalidated")
        return program_with<MutatedSync<"never-invalidated">>(configuration);
    if (variant == "free-before-invalidation")
        return program_with<MutatedSync<"free-before-invalidation">>(configuration);
    if (variant == "unwaited")
        return program_with<MutatedSync<"unwaited">>(configuration);
    if (variant == "looks-beyond")
        return program_with<MutatedSync<"looks-beyond">>(configuration);
    if (variant == "read-after-free")
        return program_with<MutatedSync<"read-after-free">, AwaitedBreakVtd>(configuration);
    MOAT_CHECK(variant == "split-unchecked", "every variant is known");
    return program_with<MutatedSync<"split-unchecked">>(configuration);
}

} // namespace moat::scenarios::page_table
