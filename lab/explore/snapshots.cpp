// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Saving and restoring stacks, heap and status.
#include "lab/explore/snapshots.hpp"

#include <cstring>

namespace moat::explore {

void Snapshots::rewind(std::size_t depth) {
    if (!journals_) {
        MOAT_CHECK(depth == 0, "only the beginning was kept");
        restore_beginning();
        return;
    }
    ActorSet restored; // the first record of an actor is the one that counts
    for (std::size_t at = depth; at != execution_.depth(); ++at) {
        const Actor actor = execution_.step_at(at).actor;
        if (actor >= first_buffer || restored.contains(actor))
            continue;
        restored.add(actor);
        const Undo& undo = undo_[at];
        scheduler_.fiber(actor) = undo.fiber;
        journal_.restore_stack(undo.journal, stack_of(undo.fiber), stack_size(actor, undo.fiber));
    }
    const Undo& undo = undo_[depth];
    journal_.undo(undo.journal);
    world_.arena().shrink(undo.heap_used);
    scheduler_.restore(undo.status);
    execution_.rewind(depth, undo.plain);
}

void Snapshots::keep_beginning_only() {
    journals_ = false;
    const Arena& arena = world_.arena();
    beginning_ = {};
    beginning_.heap.assign(arena.base(), arena.base() + arena.used());
    beginning_.status = scheduler_.status();
    for (Actor actor = 0; actor != most_fibers; ++actor)
        beginning_.fibers[actor] = scheduler_.fiber(actor);
    for (ActorSet rest = beginning_.status.live; !rest.empty(); rest = rest.tail()) {
        const Actor actor = rest.first();
        beginning_.stacks[actor].assign(static_cast<std::byte*>(beginning_.fibers[actor].stack),
                                        arena.stack_top(actor));
    }
    moved_ = {};
}

void Snapshots::restore_beginning() {
    Arena& arena = world_.arena();
    std::memcpy(arena.base(), beginning_.heap.data(), beginning_.heap.size());
    arena.shrink(beginning_.heap.size());
    for (ActorSet rest = moved_; !rest.empty(); rest = rest.tail()) {
        const Actor actor = rest.first();
        scheduler_.fiber(actor) = beginning_.fibers[actor];
        const std::vector<std::byte>& stack = beginning_.stacks[actor];
        std::memcpy(beginning_.fibers[actor].stack, stack.data(), stack.size());
    }
    scheduler_.restore(beginning_.status);
    execution_.rewind(0, 0);
    moved_ = {};
}

} // namespace moat::explore
