// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SpaceConfig: what a Space is created with: options, and the caller's hooks for reports, call
// stacks and pages. Values only.
#pragma once

#include "moat/dma/driver_error.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

namespace moat::dma {

/// Writes the callers' return addresses to `frames`, innermost first. Return: how many. Any thread.
/// platform/stack.hpp has one.
using CaptureStack = std::size_t (*)(std::span<std::uintptr_t> frames);

/// Whole pages that the domain can map. Any thread calls it, without a lock of the space.
struct PageSource {
    /// `size` and the result's address are multiples of a page. Return: empty without memory.
    Memory (*allocate)(void* context, ByteCount size) = nullptr;
    void (*release)(void* context, const Memory& pages) = nullptr;
    void* context = nullptr;
};

/// Memory of this process, as Memory::own, aligned for pages of up to 64 KiB.
[[nodiscard]] inline PageSource own_pages() {
    constexpr std::size_t alignment = 64 << 10;
    return {[](void*, ByteCount size) {
                const std::size_t whole = (size.value() + alignment - 1) & ~(alignment - 1);
                auto* const bytes = static_cast<std::byte*>(std::aligned_alloc(alignment, whole));
                return bytes == nullptr ? Memory() : Memory::own({bytes, size.value()});
            },
            [](void*, const Memory& pages) { std::free(pages.bytes.data()); }, nullptr};
}

struct SpaceConfig {
    Options options = {};
    /// The last address that every device of the domain can send.
    Iova dma_mask{~std::uint64_t{0}};
    Listener listener = {};
    /// Required if `options.stacks` is not 0. If set, sampled mappings and mappings that a memory
    /// checker watches record their stacks too.
    CaptureStack capture = nullptr;
    /// Required at level `exact` and for sampling: whole pages for small buffers. For in-process
    /// devices, a memory checker watches only mappings with such pages.
    PageSource pages = {};
};

} // namespace moat::dma
