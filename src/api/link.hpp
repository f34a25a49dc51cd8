// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How mappings and buffers find a container that may have ended: by an anchor, which is used again
// for other containers and never freed, and the anchor's generation. So a mapping costs no count of
// references, which all threads would write.
#pragma once

#include "moat/moat.hpp"

#include <atomic>
#include <cstdint>

namespace moat::api {

struct Anchor {
    /// Counts the containers that ended; a Link of one of those differs.
    std::atomic<std::uint64_t> generation{1};
    Core* core = nullptr;
};

/// Throws std::bad_alloc.
[[nodiscard]] Anchor& take_anchor(Core& core);

/// From the return on no Link finds the container.
void end_links(Anchor& anchor);

/// The anchor is another container's from now on.
void return_anchor(Anchor& anchor);

inline Core* Link::core() const {
    if (anchor_ == nullptr || anchor_->generation.load(std::memory_order_acquire) != generation_)
        return nullptr;
    Core* const found = anchor_->core;
    if (found == nullptr)
        __builtin_unreachable(); // a living anchor has a core: one test less for each mapping
    return found;
}

} // namespace moat::api
