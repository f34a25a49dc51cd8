// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Strategies by name.
#include "lab/explore/search.hpp"

namespace moat::explore {

SearchResult search(Strategy strategy, Machine& machine, const SearchOptions& options) {
    switch (strategy) {
    case Strategy::dpor:
        return search_dpor(machine, options);
    case Strategy::sleep:
        return search_sleep(machine, options);
    case Strategy::naive:
        return search_naive(machine, options);
    case Strategy::bound:
        return search_bound(machine, options);
    case Strategy::pct:
        return search_pct(machine, options);
    case Strategy::random:
        return search_random(machine, options);
    }
    return {};
}

} // namespace moat::explore
