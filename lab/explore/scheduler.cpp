// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rare queries of the scheduler: waits, pauses, and all actors at once.
#include "lab/explore/scheduler.hpp"

#include <algorithm>
#include <array>

namespace moat::explore {

Touch Scheduler::pending_touch(Actor actor) const {
    return actor >= first_buffer ? world_.model()->buffer_touch(actor)
                                 : world_.pending_touch(actor, *fibers_[actor].pending);
}

ActorSet Scheduler::unfinished() const {
    ActorSet waiting = status_.live;
    for (Actor service : {reclaimer, timer_service})
        if (waiting.contains(service) && (fibers_[service].pending->kind == Kind::reclaim ||
                                          fibers_[service].pending->kind == Kind::fire))
            waiting.remove(service);
    return waiting;
}

bool Scheduler::is_enabled(Actor actor) const {
    const Operation& operation = *fibers_[actor].pending;
    if (operation.kind == Kind::pause)
        return end_of_pause(actor) != no_step;
    if (operation.kind == Kind::barrier && fibers_[reclaimer].pending->kind != Kind::reclaim)
        return false;
    return world_.allows(actor, operation);
}

void Scheduler::update_all() {
    const ActorSet restricted = status_.of(Nature::locks) | status_.of(Nature::pauses) |
                                status_.of(Nature::waits) | status_.of(Nature::chooses);
    status_.enabled = status_.live - restricted - status_.held;
    for (ActorSet rest = restricted - status_.held; !rest.empty(); rest = rest.tail())
        if (is_enabled(rest.first()))
            status_.enabled.add(rest.first());
    if (world_.model() != nullptr)
        status_.enabled = status_.enabled | world_.model()->buffers();
    if (status_.enabled.empty())
        release_pauses();
}

/// If nothing can change any more, actors that wait for a change check once more, none more often
/// than the others: one of them may have missed the change, and goes on.
void Scheduler::release_pauses() {
    const ActorSet pausing = status_.of(Nature::pauses) - status_.held;
    std::array<unsigned, most_actors> checks{};
    for (std::size_t at = execution_.depth();
         at-- != 0 && execution_.change_since(at, nobody) == no_step;)
        if (execution_.step_at(at).touch.kind == Kind::pause)
            ++checks.at(execution_.step_at(at).actor);
    unsigned least = ~0U;
    for (ActorSet rest = pausing; !rest.empty(); rest = rest.tail())
        least = std::min(least, checks.at(rest.first()));
    for (ActorSet rest = pausing; !rest.empty(); rest = rest.tail())
        if (checks.at(rest.first()) == least)
            status_.enabled.add(rest.first());
}

std::uint64_t Scheduler::hash_stacks(std::uint64_t hash) const {
    for (ActorSet rest = status_.live; !rest.empty(); rest = rest.tail()) {
        const Actor actor = rest.first();
        const auto* const stack = static_cast<const std::byte*>(fibers_[actor].stack);
        const auto size = static_cast<std::size_t>(world_.arena().stack_top(actor) - stack);
        hash = hash_bytes(stack, size, hash + actor + size);
    }
    return hash;
}

} // namespace moat::explore
