// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat_config: what is usual, and the ContainerConfig that it stands for. entries.cpp calls it.
#pragma once

#include "moat/moat.hpp"

#include "boundary.hpp"

namespace moat::api::c {

/// moat_config as of version 1.
inline constexpr std::size_t first_config_bytes = offsetof(moat_config, context) + sizeof(void*);

[[nodiscard]] moat_config usual_config();

/// All but the listeners. Failures: MOAT_INVALID, where a number is none of moat.h's.
[[nodiscard]] std::expected<ContainerConfig, Failure> config_for_cpp(const moat_config& config);

/// Failures: MOAT_INVALID.
[[nodiscard]] std::expected<Direction, Failure> direction_of(std::int32_t number);

} // namespace moat::api::c
