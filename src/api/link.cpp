// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The anchors of all containers, living and past.
#include "link.hpp"

#include <memory>
#include <mutex>
#include <vector>

namespace moat::api {

namespace {

struct Pool {
    std::mutex mutex;
    std::vector<std::unique_ptr<Anchor>> all;
    std::vector<Anchor*> free; ///< has room for all
};

/// Never ends: mappings with static storage may ask after every destructor has run.
[[nodiscard]] Pool& pool() {
    static Pool& only = *new Pool;
    return only;
}

} // namespace

Anchor& take_anchor() {
    Pool& pool = api::pool();
    const std::lock_guard lock(pool.mutex);
    if (pool.free.empty()) {
        pool.free.reserve(pool.all.size() + 1);
        pool.all.push_back(std::make_unique<Anchor>());
        pool.free.push_back(pool.all.back().get());
    }
    Anchor& taken = *pool.free.back();
    pool.free.pop_back();
    return taken;
}

void end_links(Anchor& anchor) {
    anchor.generation.fetch_add(1, std::memory_order_acq_rel);
}

void return_anchor(Anchor& anchor) {
    Pool& pool = api::pool();
    const std::lock_guard lock(pool.mutex);
    pool.free.push_back(&anchor);
}

} // namespace moat::api
