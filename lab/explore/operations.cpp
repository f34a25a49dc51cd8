// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What each operation waits for and does, sequentially consistent. Weaker memory models take over
// accesses to memory; locks, RCU, timers and lifetimes are the same under all of them.
#include "lab/explore/dependence.hpp"
#include "lab/explore/machine.hpp"

#include <cstring>
#include <utility>

namespace moat::explore {

namespace {

template <class T>
[[nodiscard]] T& at(const Operation& operation) {
    return *static_cast<T*>(operation.address);
}

[[nodiscard]] TimerState* earliest(const Services::Time& time) {
    TimerState* first = nullptr;
    for (TimerState* each = time.timers; each != nullptr; each = each->next)
        if (each->armed && (first == nullptr || each->deadline < first->deadline))
            first = each;
    return first;
}

/// Whether somebody who waits for a change should look again after a step of this kind.
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

bool Machine::is_enabled(Actor actor) const {
    const Operation& operation = *fibers_[actor].pending;
    if (model_ != nullptr && !model_->allows(actor, operation))
        return false;
    switch (operation.kind) {
    case Kind::lock: {
        const auto& lock = at<LockState>(operation);
        return lock.owner == 0 && lock.readers == 0;
    }
    case Kind::lock_shared:
        return at<LockState>(operation).owner == 0;
    case Kind::wait_end:
        return operation.operand != 0 || at<ConditionState>(operation).notified.contains(actor);
    case Kind::grace_end:
        return services_->rcu.waits_for[actor].empty();
    case Kind::reclaim:
        return services_->deferred.first != nullptr;
    case Kind::barrier:
        return services_->deferred.first == nullptr &&
               fibers_[reclaimer].pending->kind == Kind::reclaim;
    case Kind::cancel:
        return services_->time.running != reinterpret_cast<TimerState*>(operation.operand) ||
               actor == timer_service;
    case Kind::fire:
        return earliest(services_->time) != nullptr;
    case Kind::pause:
        return change_since(actor) != no_step;
    default:
        return true;
    }
}

std::int32_t Machine::change_since(Actor actor) const {
    for (std::size_t at_depth = fibers_[actor].paused_at; at_depth < depth_; ++at_depth)
        if (steps_[at_depth].actor != actor && is_change(steps_[at_depth].touch.kind))
            return static_cast<std::int32_t>(at_depth);
    return no_step;
}

unsigned Machine::count_options(Actor actor) const {
    if (actor >= first_buffer)
        return 1;
    const Operation& operation = *fibers_[actor].pending;
    switch (operation.kind) {
    case Kind::choose:
        return static_cast<unsigned>(operation.operand);
    case Kind::allocate:
        return services_->memory.failures_left != 0 ? 2 : 1;
    case Kind::notify_one: {
        const unsigned waiting = at<ConditionState>(operation).waiting.count();
        return waiting == 0 ? 1 : waiting;
    }
    default:
        break;
    }
    return model_ != nullptr && is_memory_access(operation.kind) ? model_->options(actor, operation)
                                                                 : 1;
}

void Machine::take_free(const Operation& operation) {
    void* const note = arena_.allocate(sizeof(FreedRange), alignof(FreedRange));
    if (note == nullptr) {
        exceed("the arena has no room to note one more free");
        return;
    }
    const std::uint32_t begin = arena_.offset_of(operation.address);
    services_->memory.freed =
        new (note) FreedRange{begin, begin + static_cast<std::uint32_t>(operation.operand),
                              static_cast<std::int32_t>(depth_), services_->memory.freed};
    std::memset(operation.address, 0xdd, operation.operand);
}

void Machine::take_other(Actor actor, Operation& operation, unsigned option, Step& step) {
    if (is_lock(operation.kind))
        take_lock(actor, operation);
    else
        take_service(actor, operation, option, step);
    if (operation.kind == Kind::try_lock && operation.result == 0)
        step.touch.kind = Kind::try_in_vain;
}

void Machine::take_lock(Actor actor, Operation& operation) {
    switch (operation.kind) {
    case Kind::lock:
        at<LockState>(operation).owner = actor + 1;
        break;
    case Kind::try_lock: {
        auto& lock = at<LockState>(operation);
        operation.result = lock.owner == 0 && lock.readers == 0 ? 1 : 0;
        if (operation.result != 0)
            lock.owner = actor + 1;
        break;
    }
    case Kind::unlock:
        if (std::exchange(at<LockState>(operation).owner, 0) != actor + 1)
            record(ViolationKind::misuse, "a thread unlocks what it has not locked", actor);
        break;
    case Kind::lock_shared:
        ++at<LockState>(operation).readers;
        break;
    case Kind::unlock_shared:
        if (at<LockState>(operation).readers-- == 0)
            record(ViolationKind::misuse, "a thread unlocks what it has not locked", actor);
        break;
    default:
        break;
    }
}

void Machine::take_service(Actor actor, Operation& operation, unsigned option, Step& step) {
    switch (operation.kind) {
    case Kind::wait_begin:
        at<ConditionState>(operation).waiting.add(actor);
        break;
    case Kind::wait_end: {
        auto& condition = at<ConditionState>(operation);
        operation.result = condition.notified.contains(actor) ? 1 : 0;
        condition.notified.remove(actor);
        condition.waiting.remove(actor);
        break;
    }
    case Kind::notify_one: {
        auto& condition = at<ConditionState>(operation);
        if (condition.waiting.empty())
            break;
        const Actor woken = condition.waiting.at(option);
        condition.waiting.remove(woken);
        condition.notified.add(woken);
        break;
    }
    case Kind::notify_all: {
        auto& condition = at<ConditionState>(operation);
        condition.notified = condition.notified | std::exchange(condition.waiting, {});
        break;
    }
    case Kind::read_begin:
    case Kind::read_end:
    case Kind::grace_begin:
    case Kind::grace_end:
    case Kind::defer:
    case Kind::reclaim:
    case Kind::barrier:
        take_rcu(actor, operation, step);
        break;
    case Kind::arm:
    case Kind::cancel:
    case Kind::fire:
    case Kind::fired:
    case Kind::advance:
    case Kind::read_time:
        take_time(operation);
        break;
    case Kind::free:
        take_free(operation);
        break;
    case Kind::allocate:
        operation.result = option == 0 ? 1 : 0;
        services_->memory.failures_left -= option;
        break;
    case Kind::choose:
        operation.result = option;
        break;
    case Kind::pause:
        step.cause = change_since(actor);
        break;
    default:
        break;
    }
}

void Machine::take_rcu(Actor actor, Operation& operation, Step& step) {
    Services::Rcu& rcu = services_->rcu;
    Services::Deferred& deferred = services_->deferred;
    switch (operation.kind) {
    case Kind::read_begin:
        rcu.inside.add(actor);
        break;
    case Kind::read_end:
        rcu.inside.remove(actor);
        for (ActorSet& waits_for : rcu.waits_for)
            waits_for.remove(actor);
        break;
    case Kind::grace_begin:
        if (rcu.inside.contains(actor))
            record(ViolationKind::misuse, "a grace period is awaited inside a read section", actor);
        rcu.waits_for[actor] = rcu.inside;
        break;
    case Kind::defer: {
        auto* const head = reinterpret_cast<RcuHead*>(operation.operand);
        (deferred.first == nullptr ? deferred.first : deferred.last->next) = head;
        deferred.last = head;
        break;
    }
    case Kind::reclaim:
        operation.result = reinterpret_cast<std::uint64_t>(deferred.first);
        deferred.first = deferred.first->next;
        break;
    case Kind::barrier:
        step.cause = last_step_of(reclaimer);
        break;
    default:
        break;
    }
}

std::int32_t Machine::last_step_of(Actor actor) const {
    for (std::size_t at_depth = depth_; at_depth-- != 0;)
        if (steps_[at_depth].actor == actor)
            return static_cast<std::int32_t>(at_depth);
    return no_step;
}

void Machine::take_time(Operation& operation) {
    Services::Time& time = services_->time;
    auto* const timer = reinterpret_cast<TimerState*>(operation.operand);
    switch (operation.kind) {
    case Kind::arm:
        timer->armed = true;
        timer->deadline = time.now + operation.expected;
        break;
    case Kind::cancel:
        timer->armed = false;
        break;
    case Kind::fire: {
        TimerState* const due = earliest(time);
        due->armed = false;
        time.running = due;
        time.now = std::max(time.now, due->deadline);
        operation.result = reinterpret_cast<std::uint64_t>(due);
        break;
    }
    case Kind::fired:
        time.running = nullptr;
        break;
    case Kind::advance:
        time.now += operation.operand;
        break;
    case Kind::read_time:
        operation.result = time.now;
        break;
    default:
        break;
    }
}

void Machine::perform_at_once(Operation& operation) {
    Step step;
    if (is_memory_access(operation.kind)) {
        operation.result = read_word(operation.address, operation.size);
        if (const auto value = value_after(operation, operation.result))
            write_word(operation.address, operation.size, *value);
        return;
    }
    if (is_lock(operation.kind))
        take_lock(nobody, operation);
    else if (operation.kind != Kind::grace_begin && operation.kind != Kind::grace_end)
        take_service(nobody, operation, 0, step); // there is nobody to wait for
}

} // namespace moat::explore
