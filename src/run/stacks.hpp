// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stacks: the call stacks of a program, each distinct one once.
#pragma once

#include "moat/fault/mapping.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_set>
#include <vector>

namespace moat::run {

/// Not thread-safe. Stacks stay where they are.
class Stacks {
  public:
    [[nodiscard]] fault::StackView keep(fault::StackView stack);

  private:
    using Stack = std::vector<std::uintptr_t>;

    struct Hash {
        using is_transparent = void;
        std::size_t operator()(fault::StackView stack) const;
    };

    struct Equal {
        using is_transparent = void;

        bool operator()(fault::StackView a, fault::StackView b) const {
            return std::ranges::equal(a, b);
        }
    };

    std::unordered_set<Stack, Hash, Equal> stacks_;
    std::array<fault::StackView, 16> latest_; ///< by the innermost frame
};

} // namespace moat::run
