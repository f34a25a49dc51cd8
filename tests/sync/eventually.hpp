// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Waits for other threads without sleeping, and without hanging after a failure.
#pragma once

#include "moat/sync/real.hpp"

#include <cstdint>

namespace moat::tests {

/// Returns whether `condition()` became true within ten seconds. They pass only where the code
/// under test is broken, so no test depends on the machine's speed.
[[nodiscard]] bool eventually(const auto& condition) {
    constexpr std::uint64_t patience = 10'000'000'000;
    const std::uint64_t start = RealSync::now();
    while (!condition())
        if (RealSync::now() - start > patience)
            return false;
        else
            RealSync::yield();
    return true;
}

} // namespace moat::tests
