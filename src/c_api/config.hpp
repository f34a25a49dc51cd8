// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat_config: what is usual, and what the space below makes of it.
// entries.cpp takes the struct in; container.cpp acts on the result.
#pragma once

#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"

#include "boundary.hpp"

namespace moat::c_api {

/// moat_config as of version 1.
inline constexpr std::size_t first_config_bytes = offsetof(moat_config, context) + sizeof(void*);

[[nodiscard]] moat_config usual_config();

/// The fields, then `options`, then the environment where the flags say so. Failures: MOAT_INVALID,
/// with a sentence that says what would be right.
[[nodiscard]] std::expected<dma::Options, Failure> options_of(const moat_config& config);

/// The same numbers in moat.h and in dma/. None: there is no such one.
[[nodiscard]] std::expected<dma::Direction, Failure> direction_of(std::int32_t number);

} // namespace moat::c_api
