// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every schedule: the yardstick that reductions are compared with.
#include "tree_search.hpp"

namespace moat::explore {

SearchResult search_naive(Machine& machine, const SearchOptions& options) {
    TreePolicy policy;
    return TreeSearch<TreePolicy>(machine, options, policy).run();
}

} // namespace moat::explore
