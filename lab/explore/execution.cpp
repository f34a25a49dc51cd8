// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Questions about the steps that an execution has taken.
#include "lab/explore/execution.hpp"

#include <bit>

namespace moat::explore {

namespace {

/// Whether an actor that waits for a change should look again after a step of this kind.
[[nodiscard]] bool is_change(Kind kind) {
    switch (kind) {
    case Kind::load:
    case Kind::buffer:
    case Kind::lock:
    case Kind::try_in_vain:
    case Kind::lock_shared:
    case Kind::read_begin:
    case Kind::grace_begin:
    case Kind::wait_begin:
    case Kind::read_time:
    case Kind::allocate:
    case Kind::choose:
    case Kind::pause:
        return false;
    default:
        return true;
    }
}

} // namespace

std::int32_t Execution::change_since(std::size_t from, Actor actor) const {
    for (std::size_t at = from; at < depth_; ++at)
        if (steps_[at].actor != actor && is_change(steps_[at].touch.kind))
            return static_cast<std::int32_t>(at);
    return no_step;
}

std::int32_t Execution::last_step_of(Actor actor) const {
    for (std::size_t at = depth_; at-- != 0;)
        if (steps_[at].actor == actor)
            return static_cast<std::int32_t>(at);
    return no_step;
}

void Execution::look_for_livelock(std::uint64_t hash, ActorSet enabled) {
    const auto landmark = static_cast<std::size_t>(std::bit_width(depth_) - 1);
    const std::size_t begin = std::size_t{1} << landmark;
    if (depth_ == begin) {
        landmarks_[landmark] = hash;
        return;
    }
    if (hash != landmarks_[landmark] || enabled.empty())
        return;
    ActorSet moved;
    ActorSet could_move;
    for (std::size_t at = begin; at != depth_; ++at) {
        moved.add(steps_[at].actor);
        could_move = could_move | enabled_at_[at];
    }
    if ((could_move - moved).empty())
        record(ViolationKind::livelock,
               "all who can move do so for ever, and come back to the same state", moved.first());
}

} // namespace moat::explore
