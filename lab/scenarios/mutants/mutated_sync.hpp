// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MutatedSync: the Sync policy of mutated headers. It names the one mutation that is in force, and
// keeps their instantiations apart from those of the shipped headers.
#pragma once

#include "lab/explore/explored_sync.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace moat::scenarios {

template <std::size_t Size>
struct MutantName {
    consteval MutantName(const char (&name)[Size]) { // NOLINT(google-explicit-constructor)
        std::copy_n(name, Size, text.begin());
    }

    std::array<char, Size> text{};
};

template <MutantName Name>
struct MutatedSync : ExploredSync {
    static constexpr std::string_view broken = Name.text.data();
};

} // namespace moat::scenarios
