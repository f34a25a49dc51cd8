// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Registered: the registry's entry for a living mapping. A value only.
#pragma once

#include "moat/dma/memory.hpp"
#include "moat/fault/mapping.hpp"

namespace moat::dma {

/// Labels and stacks outlive the registry.
struct Registered {
    fault::Mapping mapping = {};
    Direction direction = Direction::bidirectional;
    bool is_part = false; ///< of a list with guards: it ends with its list
};

} // namespace moat::dma
