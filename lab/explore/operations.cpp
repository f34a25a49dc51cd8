// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What each operation waits for and does, sequentially consistent. Weaker memory models replace
// accesses to memory; locks, RCU, timers and lifetimes are the same under all of them.
#include "lab/explore/world.hpp"

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

} // namespace

bool World::allows(Actor actor, const Operation& operation) const {
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
        return services_->deferred.first == nullptr;
    case Kind::cancel:
        return services_->time.running != reinterpret_cast<TimerState*>(operation.operand) ||
               actor == timer_service;
    case Kind::fire:
        return earliest(services_->time) != nullptr;
    default:
        return true;
    }
}

unsigned World::options(Actor actor, const Operation& operation) const {
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

Touch World::pending_touch(Actor actor, const Operation& operation) const {
    Touch touch = touch_of(actor, operation);
    if (touch.kind == Kind::try_lock && touch.location != nowhere) {
        const auto& lock = at<LockState>(operation);
        if (lock.owner != 0 || lock.readers != 0)
            touch.kind = Kind::try_in_vain;
    }
    return touch;
}

void World::add_extent(Actor actor, const Operation& operation, Touch& touch) const {
    if (operation.kind == Kind::grace_end)
        touch.who = ActorSet::of(actor);
    if (operation.kind == Kind::read_end)
        for (Actor waiter = 0; waiter != most_fibers; ++waiter)
            if (services_->rcu.waits_for[waiter].contains(actor))
                touch.who.add(waiter);
    if (operation.kind == Kind::free)
        touch.extent = static_cast<std::uint32_t>(operation.operand);
}

bool World::look_for_freed(const Operation& operation) {
    if (operation.address == nullptr)
        return true;
    if (!arena_.contains(operation.address)) {
        exceed("a shared object lies outside of the arena");
        return false;
    }
    const std::uint32_t offset = arena_.offset_of(operation.address);
    const FreedRange* each = services_->memory.freed;
    while (each != nullptr && offset - each->begin >= each->end - each->begin)
        each = each->next;
    if (each == nullptr)
        return true;
    const Actor actor = execution_.running();
    if (operation.kind == Kind::free)
        execution_.record(ViolationKind::misuse, "memory is freed twice", actor, each->step);
    else
        execution_.record(ViolationKind::use_after_free,
                          std::string(explore::name(operation.kind)) + " in freed memory", actor,
                          each->step);
    return false;
}

void World::take_free(const Operation& operation) {
    void* const note = arena_.allocate(sizeof(FreedRange), alignof(FreedRange));
    if (note == nullptr) {
        exceed("the arena has no room to note one more free");
        return;
    }
    const std::uint32_t begin = arena_.offset_of(operation.address);
    services_->memory.freed = new (note)
        FreedRange{begin, begin + static_cast<std::uint32_t>(operation.operand),
                   static_cast<std::int32_t>(execution_.depth()), services_->memory.freed};
    std::memset(operation.address, 0xdd, operation.operand);
}

void World::take_other(Actor actor, Operation& operation, unsigned option, Step& step) {
    if (is_lock(operation.kind))
        take_lock(actor, operation);
    else
        take_service(actor, operation, option, step);
    if (operation.kind == Kind::try_lock && operation.result == 0)
        step.touch.kind = Kind::try_in_vain;
}

void World::take_lock(Actor actor, Operation& operation) {
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
            execution_.record(ViolationKind::misuse, "a thread unlocks what it has not locked",
                              actor);
        break;
    case Kind::lock_shared:
        ++at<LockState>(operation).readers;
        break;
    case Kind::unlock_shared:
        if (at<LockState>(operation).readers-- == 0)
            execution_.record(ViolationKind::misuse, "a thread unlocks what it has not locked",
                              actor);
        break;
    default:
        break;
    }
}

void World::take_service(Actor actor, Operation& operation, unsigned option, Step& step) {
    switch (operation.kind) {
    case Kind::wait_begin:
    case Kind::wait_end:
    case Kind::notify_one:
    case Kind::notify_all:
        take_condition(actor, operation, option);
        break;
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
    default:
        break;
    }
}

void World::take_condition(Actor actor, Operation& operation, unsigned option) {
    auto& condition = at<ConditionState>(operation);
    switch (operation.kind) {
    case Kind::wait_begin:
        condition.waiting.add(actor);
        break;
    case Kind::wait_end:
        operation.result = condition.notified.contains(actor) ? 1 : 0;
        condition.notified.remove(actor);
        condition.waiting.remove(actor);
        break;
    case Kind::notify_one:
        if (!condition.waiting.empty()) {
            const Actor woken = condition.waiting.at(option);
            condition.waiting.remove(woken);
            condition.notified.add(woken);
        }
        break;
    case Kind::notify_all:
        condition.notified = condition.notified | std::exchange(condition.waiting, {});
        break;
    default:
        break;
    }
}

void World::take_rcu(Actor actor, Operation& operation, Step& step) {
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
            execution_.record(ViolationKind::misuse,
                              "a grace period is awaited inside a read section", actor);
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
        step.cause = execution_.last_step_of(reclaimer);
        break;
    default:
        break;
    }
}

void World::take_time(Operation& operation) {
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

void World::take_at_once(Operation& operation) {
    Step step;
    if (is_memory_access(operation.kind))
        take_access(operation);
    else if (is_lock(operation.kind))
        take_lock(nobody, operation);
    else if (operation.kind != Kind::grace_begin && operation.kind != Kind::grace_end)
        take_service(nobody, operation, 0, step);
}

} // namespace moat::explore
