// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How mappings and buffers find a container that may have ended: by an anchor, which is used again
// for other containers and never freed, and the anchor's generation. So a mapping costs no count of
// references, which all threads would write.
#pragma once

#include "moat/moat.hpp"

namespace moat::api {

/// Throws std::bad_alloc.
[[nodiscard]] Anchor& take_anchor();

/// From the return on no Link finds the container.
void end_links(Anchor& anchor);

/// The anchor is another container's from now on.
void return_anchor(Anchor& anchor);

} // namespace moat::api
