// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The sizes of the registry's tree and history, and its locks. A trait of the Sync policy, like
// iova::Sizes, so that the explorer runs the shipped code with a small tree.
#pragma once

#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <cstddef>
#include <memory>
#include <new>

namespace moat::dma {

template <SyncPolicy Sync>
struct RegistrySizes {
    static constexpr unsigned levels = 5; ///< of nine bits over pages of 4K: 2^57
    static constexpr unsigned level_bits = 9;
    /// Leaves that are found without a descent: 128 MiB of addresses.
    static constexpr unsigned recent_leaves = 64;
    /// Of the history: threads that note at the same time without waiting. At most 16.
    static constexpr unsigned stripes = 16;
    /// Held for one slot or the bits of one leaf, and for one entry of the history.
    using Lock = SpinLock<Sync>;

    /// Memory of a ring. Return: null without memory.
    template <class T>
    [[nodiscard]] static T* allocate(std::size_t count) {
        try {
            return std::allocator<T>().allocate(count);
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
    }

    template <class T>
    static void deallocate(T* memory, std::size_t count) {
        std::allocator<T>().deallocate(memory, count);
    }
};

} // namespace moat::dma
