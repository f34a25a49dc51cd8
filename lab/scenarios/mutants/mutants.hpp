// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Variants of scenarios whose mistake lies in a shipped header: the build makes mutated copies of
// headers (mutations.cmake), and the .cpp files here instantiate those. Only scenarios call them.
#pragma once

#include "lab/explore/program.hpp"
#include "lab/scenarios/scenario.hpp"

#include <string_view>

namespace moat::scenarios {

namespace iova_allocator {

[[nodiscard]] explore::Program mutant_program(const Configuration& configuration);

} // namespace iova_allocator

namespace iova_flush {

[[nodiscard]] explore::Program mutant_program(const Configuration& configuration);

} // namespace iova_flush

namespace dma_past {

[[nodiscard]] explore::Program mutant_program(const Configuration& configuration);

} // namespace dma_past

namespace grace_periods {

[[nodiscard]] explore::Program mutant_program(const Configuration& configuration);

} // namespace grace_periods

namespace page_table {

[[nodiscard]] explore::Program mutant_program(const Configuration& configuration);

} // namespace page_table

namespace space {

void set_up_mutant(explore::Setup& setup, std::string_view which, std::string_view variant);

} // namespace space

namespace units {

/// For each of the queues in lab/scenarios/units.
template <template <class> class Queue>
[[nodiscard]] explore::Program mutant_program(const Configuration& configuration);

} // namespace units

} // namespace moat::scenarios
