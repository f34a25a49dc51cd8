// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Going back: by the journal to any step on the way, by a copy to the beginning only, or by running
// again from the setup.
#include "lab/explore/machine.hpp"

#include <cstring>
#include <utility>

namespace moat::explore {

void Machine::begin_undo(Actor actor) {
    undo_[depth_] = {status_, journal_.position(), arena_.used(), plain_.size(),
                     actor < first_buffer ? fibers_[actor] : Fiber()};
    if (actor >= first_buffer)
        return;
    const auto* const stack = static_cast<std::byte*>(fibers_[actor].stack);
    journal_.save_stack(stack, static_cast<std::size_t>(arena_.stack_top(actor) - stack));
}

void Machine::rewind(std::size_t depth) {
    MOAT_CHECK(depth <= depth_, "a rewind goes back");
    violation_.reset();
    if (depth == 0)
        violation_ = violation_at_start_;
    cut_ = false;
    if (depth == depth_)
        return;
    if (options_.restoration == Restoration::replay) {
        std::vector<std::pair<Actor, unsigned>> prefix;
        for (std::size_t at = 0; at != depth; ++at)
            prefix.emplace_back(steps_[at].actor, steps_[at].option);
        start();
        for (const auto& [actor, option] : prefix)
            step(actor, option);
        return;
    }
    if (!journals_) {
        MOAT_CHECK(depth == 0, "only the beginning was kept");
        restore_beginning();
        return;
    }
    for (std::size_t at = depth_; at-- != depth;)
        if (steps_[at].actor < first_buffer)
            fibers_[steps_[at].actor] = undo_[at].fiber;
    const Undo& undo = undo_[depth];
    journal_.undo(undo.journal);
    arena_.shrink(undo.heap_used);
    plain_.resize(undo.plain);
    status_ = undo.status;
    depth_ = depth;
}

void Machine::rewind_to_start_only() {
    MOAT_CHECK(depth_ == 0, "the present is the beginning");
    if (options_.restoration == Restoration::replay)
        return;
    journals_ = false;
    beginning_ = {};
    beginning_.heap.assign(arena_.base(), arena_.base() + arena_.used());
    for (ActorSet rest = status_.live; !rest.empty(); rest = rest.tail()) {
        const Actor actor = rest.first();
        beginning_.stacks[actor].assign(static_cast<std::byte*>(fibers_[actor].stack),
                                        arena_.stack_top(actor));
    }
    beginning_.fibers = fibers_;
    beginning_.status = status_;
    moved_ = {};
}

void Machine::restore_beginning() {
    std::memcpy(arena_.base(), beginning_.heap.data(), beginning_.heap.size());
    arena_.shrink(beginning_.heap.size());
    for (ActorSet rest = moved_; !rest.empty(); rest = rest.tail()) {
        const Actor actor = rest.first();
        fibers_[actor] = beginning_.fibers[actor];
        const std::vector<std::byte>& stack = beginning_.stacks[actor];
        std::memcpy(fibers_[actor].stack, stack.data(), stack.size());
    }
    status_ = beginning_.status;
    moved_ = {};
    plain_.clear();
    depth_ = 0;
}

} // namespace moat::explore
