// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The sizes of the DMA API's registry and history under the explorer: few of everything.
#pragma once

#include "moat/core/check.hpp"
#include "moat/dma/registry.hpp"

#include "lab/explore/explored_sync.hpp"

#include <array>
#include <concepts>
#include <cstddef>

namespace moat::dma {

template <SyncPolicy Sync>
    requires std::derived_from<Sync, ExploredSync>
struct RegistrySizes<Sync> {
    static constexpr unsigned levels = 3;
    static constexpr unsigned level_bits = 2;
    static constexpr unsigned recent_leaves = 2;
    static constexpr unsigned stripes = 2;
    using Lock = typename Sync::Mutex;

    /// The arena ends with the execution, so nothing is deallocated.
    template <class T>
    [[nodiscard]] static T* allocate(std::size_t count) {
        constexpr std::size_t most = 4;
        MOAT_CHECK(count <= most, "explored histories are short");
        auto* const made = Sync::template make<std::array<T, most>>();
        return made == nullptr ? nullptr : made->data();
    }

    template <class T>
    static void deallocate(T*, std::size_t) {}
};

} // namespace moat::dma
