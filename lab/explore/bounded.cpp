// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every schedule with a bounded number of preemptions. Most bugs need one or two.
#include "tree_search.hpp"

namespace moat::explore {

namespace {

struct BoundPolicy : TreePolicy {
    BoundPolicy(unsigned most, std::size_t most_steps)
        : most_preemptions(most), spent(most_steps + 2), last(most_steps + 2, most_actors) {}

    ActorSet all(const std::vector<TreeNode>& nodes, std::size_t depth) const {
        if (spent[depth] < most_preemptions)
            return nodes[depth].enabled;
        ActorSet free;
        for (ActorSet rest = nodes[depth].enabled; !rest.empty(); rest = rest.tail())
            if (!is_preemption(last[depth], rest.first(), nodes[depth].enabled))
                free.add(rest.first());
        return free;
    }

    void open(std::vector<TreeNode>& nodes, std::size_t depth) const {
        nodes[depth].backtrack = all(nodes, depth);
    }

    /// A flush of a store buffer is no switch of threads.
    void executed(std::vector<TreeNode>& nodes, std::size_t depth) {
        const Actor actor = nodes[depth].actor;
        spent[depth + 1] =
            spent[depth] + (is_preemption(last[depth], actor, nodes[depth].enabled) ? 1 : 0);
        last[depth + 1] = actor < first_buffer ? actor : last[depth];
    }

    unsigned most_preemptions;
    std::vector<unsigned> spent; ///< preemptions on the way to each depth
    std::vector<Actor> last;     ///< the thread that moved before each depth
};

} // namespace

SearchResult search_bound(Machine& machine, const SearchOptions& options) {
    BoundPolicy policy(options.preemptions, machine.options().most_steps);
    return TreeSearch<BoundPolicy>(machine, options, policy).run();
}

} // namespace moat::explore
