// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The IOVA allocator against a fast memory allocator (mimalloc) and against Linux's way.
// Goals and what they mean: docs/design/iova.md. The rows are in iova_hot.cpp, iova_mixed.cpp,
// iova_space.cpp and iova_cliffs.cpp.
#include "iova_rows.hpp"

int main(int argc, char** argv) {
    using namespace moat::bench;
    Suite suite("iova", argc, argv);
    if (!suite.only_counts()) {
        hot_pairs(suite);
        larger_pair(suite);
        ring(suite);
        mixed(suite);
        remote_release(suite);
        search_steps(suite);
        payload_share(suite);
        full_apertures(suite);
        small_apertures(suite);
        two_threads(suite);
    }
    special_pairs(suite);
    late_reuse(suite);
    cost_of_the_guard(suite);
    return suite.finish();
}
