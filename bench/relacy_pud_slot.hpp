// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The peer of bench_explore: the same model under Relacy, by full search and at random.
// Called by explore_bench.cpp.
#pragma once

#include <cstdint>

namespace moat::bench {

/// Return: how many executions the full search took.
[[nodiscard]] std::uint64_t relacy_full_search();

std::uint64_t relacy_random(std::uint64_t executions);

} // namespace moat::bench
