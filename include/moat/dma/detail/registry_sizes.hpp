// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The size of the registry's tree, and the lock of a leaf. A trait of the Sync policy, like
// iova::Sizes, so that the explorer runs the shipped code with a small tree.
#pragma once

#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

namespace moat::dma {

template <SyncPolicy Sync>
struct RegistrySizes {
    static constexpr unsigned levels = 5; ///< of nine bits over pages of 4K: 2^57
    static constexpr unsigned level_bits = 9;
    /// Held for the scan of one leaf.
    using LeafLock = SpinLock<Sync>;
};

} // namespace moat::dma
