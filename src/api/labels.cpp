// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "labels.hpp"

namespace moat::api {

std::string_view Labels::keep_slowly(std::string_view label,
                                     std::atomic<const std::string*>& recent) {
    const std::lock_guard lock(mutex_);
    auto found = kept_.find(label);
    if (found == kept_.end()) {
        if (kept_.size() == most)
            return too_many;
        found = kept_.emplace(label).first;
    }
    recent.store(&*found, std::memory_order_release);
    return *found;
}

} // namespace moat::api
