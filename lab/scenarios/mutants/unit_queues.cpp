// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The queues of IOMMUs' drivers from mutated copies of include/moat/iommu/detail.
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/mutants/mutated_sync.hpp"
#include "lab/scenarios/units/amd_commands.hpp"
#include "lab/scenarios/units/smmuv3_commands.hpp"
#include "lab/scenarios/units/smmuv3_events.hpp"
#include "lab/scenarios/units/virtio_requests.hpp"
#include "lab/scenarios/units/vtd_queue.hpp"

namespace moat::scenarios::units {

template <template <class> class Queue>
explore::Program mutant_program(const Configuration& configuration) {
    return with_mutation(configuration.at("variant"), Queue<MutatedSync>::program(configuration));
}

template explore::Program mutant_program<VtdQueue>(const Configuration&);
template explore::Program mutant_program<AmdCommands>(const Configuration&);
template explore::Program mutant_program<SmmuCommands>(const Configuration&);
template explore::Program mutant_program<SmmuEvents>(const Configuration&);
template explore::Program mutant_program<VirtioRequests>(const Configuration&);

} // namespace moat::scenarios::units
