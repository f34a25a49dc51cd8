// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sleep sets alone: all branches, except those whose continuations were all explored.
#include "tree_search.hpp"

namespace moat::explore {

namespace {

struct SleepPolicy : TreePolicy {
    static constexpr bool sleeps = true;
};

} // namespace

SearchResult search_sleep(Machine& machine, const SearchOptions& options) {
    SleepPolicy policy;
    return TreeSearch<SleepPolicy>(machine, options, policy).run();
}

} // namespace moat::explore
