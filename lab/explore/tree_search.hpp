// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Depth-first search of the tree of schedules: the part that naive, sleep, dpor and bound share.
// A policy selects the branches of a node; only those four files use it.
#pragma once

#include "execution_log.hpp"
#include "lab/explore/dependence.hpp"
#include "lab/explore/search.hpp"

#include <array>
#include <vector>

namespace moat::explore {

/// A place in the tree: the state before the step at its depth.
struct TreeNode {
    ActorSet enabled;
    ActorSet backtrack; ///< actors whose step is to be explored from here
    ActorSet done;      ///< actors whose step was
    ActorSet sleep;     ///< actors whose step need not be: all continuations were explored
    std::uint8_t actor = 0;
    std::uint8_t option = 0;
    std::uint8_t options = 1;
};

/// `Policy` has: `static constexpr bool sleeps`; `open(nodes, depth)` sets `backtrack`;
/// `executed(nodes, depth)` is called after each step, `ended(nodes)` after a complete execution.
template <class Policy>
class TreeSearch {
  public:
    TreeSearch(Machine& machine, const SearchOptions& options, Policy& policy)
        : machine_(machine), options_(options), policy_(policy), log_(machine, options),
          nodes_(machine.options().most_steps + 2) {}

    SearchResult run() {
        machine_.start();
        bool goes_on = true;
        while (goes_on) {
            if (arrive())
                take();
            else
                goes_on = goes_on_ && retreat();
            if (goes_on && !log_.passed())
                goes_on = goes_on_ = false;
        }
        log_.result.exhausted = goes_on_ && log_.result.tally.cut == 0;
        return std::move(log_.result);
    }

  private:
    /// Opens the node of the state just reached. Return: whether to take a step from it.
    bool arrive() {
        depth_ = machine_.depth();
        TreeNode& node = nodes_[depth_];
        node.enabled = machine_.enabled();
        if (!is_mine(node))
            return false;
        if (node.enabled.empty()) {
            if (!machine_.violation() && !machine_.cut())
                policy_.ended(nodes_);
            goes_on_ = log_.ended();
            return false;
        }
        if ((node.enabled - node.sleep).empty()) {
            goes_on_ = log_.blocked();
            return false;
        }
        node.done = {};
        if (depth_ < options_.division.depth)
            node.backtrack = policy_.all(nodes_, depth_);
        else
            policy_.open(nodes_, depth_);
        const ActorSet choices = node.backtrack - node.sleep;
        if (choices.empty())
            return false;
        choose(node, choices.first());
        return true;
    }

    /// A subtree begins at the depth of the division, or above it where an execution ends there.
    bool is_mine(const TreeNode& node) {
        const Division& division = options_.division;
        if (depth_ > division.depth || division.depth == 0)
            return true;
        const bool ends = (node.enabled - node.sleep).empty();
        return (depth_ < division.depth && !ends) || division.is_mine(log_.result.tally.subtrees++);
    }

    void choose(TreeNode& node, Actor actor) {
        node.actor = static_cast<std::uint8_t>(actor);
        node.option = 0;
        node.options = static_cast<std::uint8_t>(machine_.options(actor));
    }

    void take() {
        TreeNode& node = nodes_[depth_];
        const ActorSet sleeping = Policy::sleeps ? node.sleep : ActorSet();
        for (ActorSet rest = sleeping; !rest.empty(); rest = rest.tail())
            touches_[rest.first()] = machine_.pending_touch(rest.first());
        machine_.step(node.actor, node.option);
        ++log_.result.tally.steps;
        const Touch& touch = machine_.step_at(depth_).touch;
        TreeNode& next = nodes_[depth_ + 1];
        next.sleep = {};
        for (ActorSet rest = sleeping; !rest.empty(); rest = rest.tail())
            if (dependence(touch, touches_[rest.first()]) == Dependence::none)
                next.sleep.add(rest.first());
        policy_.executed(nodes_, depth_);
    }

    /// Goes back to the deepest node with an unexplored branch. Return: false without one.
    bool retreat() {
        while (depth_-- != 0) {
            TreeNode& node = nodes_[depth_];
            const bool another_way = node.option + 1 < node.options;
            if (!another_way) {
                node.done.add(node.actor);
                if (Policy::sleeps)
                    node.sleep.add(node.actor);
            }
            const ActorSet left = node.backtrack - node.done - node.sleep;
            if (!another_way && left.empty())
                continue;
            machine_.rewind(depth_);
            policy_.rewind(depth_);
            if (another_way)
                ++node.option;
            else
                choose(node, left.first());
            estimate();
            take();
            return true;
        }
        return false;
    }

    /// The part of the tree to the left of the present path, as if all subtrees were equal.
    void estimate() {
        if ((++estimates_ & 0xfff) != 0)
            return;
        double fraction = 0;
        double weight = 1;
        for (std::size_t at = 0; at <= depth_; ++at) {
            const TreeNode& node = nodes_[at];
            const unsigned branches = (node.backtrack - (node.sleep - node.done)).count();
            weight /= branches == 0 ? 1 : branches;
            fraction += weight * node.done.count();
        }
        log_.result.tally.fraction = fraction;
    }

    Machine& machine_;
    const SearchOptions& options_;
    Policy& policy_;
    ExecutionLog log_;
    std::vector<TreeNode> nodes_;
    /// Of the sleeping actors, as they would be instead of the next step.
    std::array<Touch, most_actors> touches_{};
    std::size_t depth_ = 0;
    std::uint64_t estimates_ = 0;
    bool goes_on_ = true;
};

/// Empty defaults for a policy to inherit.
struct TreePolicy {
    static constexpr bool sleeps = false;

    static ActorSet all(const std::vector<TreeNode>& nodes, std::size_t depth) {
        return nodes[depth].enabled;
    }

    static void open(std::vector<TreeNode>& nodes, std::size_t depth) {
        nodes[depth].backtrack = nodes[depth].enabled;
    }

    static void executed(std::vector<TreeNode>&, std::size_t) {}

    static void ended(std::vector<TreeNode>&) {}

    static void rewind(std::size_t) {}
};

} // namespace moat::explore
