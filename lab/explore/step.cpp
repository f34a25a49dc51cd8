// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One step: perform what a thread announced, let it run to its next announcement, and see who can
// move then. All that happens at every step is here, so that it is compiled into one piece.
#include "lab/explore/machine.hpp"

#include <utility>

namespace moat::explore {

namespace {

/// Executions that are shorter are not asked whether they go round in circles.
constexpr std::size_t livelock_depth = 64;

/// Steps that concern at most those who wait for a lock there, or for any change.
[[nodiscard]] constexpr bool is_local(Kind kind) {
    return kind <= Kind::unlock_shared;
}

} // namespace

constexpr Machine::Nature Machine::nature_of(Kind kind) {
    switch (kind) {
    case Kind::lock:
    case Kind::lock_shared:
        return Nature::locks;
    case Kind::pause:
        return Nature::pauses;
    case Kind::wait_end:
    case Kind::grace_end:
    case Kind::reclaim:
    case Kind::barrier:
    case Kind::cancel:
    case Kind::fire:
        return Nature::waits;
    case Kind::choose:
    case Kind::allocate:
    case Kind::notify_one:
        return Nature::chooses;
    default:
        return Nature::plain;
    }
}

inline bool Machine::check_address(const Operation& operation) {
    if (arena_.contains(operation.address) && services_->memory.freed == nullptr) [[likely]]
        return true;
    return look_for_freed(operation);
}

bool Machine::look_for_freed(const Operation& operation) {
    if (operation.address == nullptr)
        return true;
    if (!arena_.contains(operation.address)) {
        record(ViolationKind::memory, "a shared object lies outside of the arena", running_);
        return false;
    }
    const std::uint32_t offset = arena_.offset_of(operation.address);
    const FreedRange* each = services_->memory.freed;
    while (each != nullptr && offset - each->begin >= each->end - each->begin)
        each = each->next;
    if (each == nullptr)
        return true;
    if (operation.kind == Kind::free)
        record(ViolationKind::misuse, "memory is freed twice", running_, each->step);
    else
        record(ViolationKind::use_after_free,
               std::string(explore::name(operation.kind)) + " in freed memory", running_,
               each->step);
    return false;
}

void Machine::note_plain(const void* address, bool is_write) {
    if (running_ == nobody)
        return;
    if (observer_ != nullptr) [[unlikely]]
        observer_->accesses_plain(running_);
    if (!check_address({.address = const_cast<void*>(address)})) {
        if (observer_ != nullptr)
            observer_->fails(running_);
        leave_fiber();
    }
    plain_.push_back(
        {depth_, arena_.offset_of(address), static_cast<std::uint8_t>(running_), is_write});
}

inline void Machine::take_access(Operation& operation) {
    operation.result = read_word(operation.address, operation.size);
    if (operation.kind == Kind::load)
        return;
    if (const auto value = value_after(operation, operation.result))
        write_word(operation.address, operation.size, *value);
}

inline void Machine::take(Actor actor, Operation& operation, unsigned option, Step& step) {
    if (!check_address(operation)) [[unlikely]]
        return;
    if (model_ == nullptr) [[likely]] {
        if (is_memory_access(operation.kind))
            take_access(operation);
        else
            take_other(actor, operation, option, step);
        return;
    }
    if ((is_memory_access(operation.kind) || operation.kind == Kind::unlock) &&
        model_->perform(actor, operation, option, step))
        return;
    if (is_memory_access(operation.kind)) {
        take_access(operation);
        return;
    }
    take_other(actor, operation, option, step);
    model_->synchronise(actor, operation, step);
}

inline Touch Machine::touch_of(Actor actor, const Operation& operation) const {
    Touch touch = {operation.kind, nowhere, 0, {}};
    if (arena_.contains(operation.address)) [[likely]]
        touch.location = arena_.offset_of(operation.address);
    if (!is_local(operation.kind)) [[unlikely]]
        add_extent(actor, operation, touch);
    return model_ == nullptr ? touch : model_->touch(operation, touch);
}

void Machine::add_extent(Actor actor, const Operation& operation, Touch& touch) const {
    if (operation.kind == Kind::grace_end)
        touch.who = ActorSet::of(actor);
    if (operation.kind == Kind::read_end)
        for (Actor waiter = 0; waiter != most_fibers; ++waiter)
            if (services_->rcu.waits_for[waiter].contains(actor))
                touch.who.add(waiter);
    if (operation.kind == Kind::free)
        touch.extent = static_cast<std::uint32_t>(operation.operand);
}

Touch Machine::pending_touch(Actor actor) const {
    if (actor >= first_buffer)
        return model_->buffer_touch(actor);
    const Operation& pending = *fibers_[actor].pending;
    Touch touch = touch_of(actor, pending);
    if (touch.kind == Kind::try_lock && touch.location != nowhere) {
        const auto& lock = *static_cast<const LockState*>(pending.address);
        if (lock.owner != 0 || lock.readers != 0)
            touch.kind = Kind::try_in_vain;
    }
    return touch;
}

/// What `actor` announced happens, and is written down; whoever announced it has not gone on yet.
[[gnu::always_inline]] inline void Machine::take_step(Actor actor, unsigned option) {
    Step& step = steps_[depth_];
    enabled_at_[depth_] = status_.enabled;
    step.actor = static_cast<std::uint8_t>(actor);
    step.option = static_cast<std::uint8_t>(option);
    step.cause = no_step;
    step.reads_from = no_step;
    if (actor >= first_buffer) [[unlikely]] {
        step.touch = model_->buffer_touch(actor);
        model_->flush(actor, step);
        ++depth_;
        return;
    }
    Operation& operation = *fibers_[actor].pending;
    step.touch = touch_of(actor, operation);
    step.size = operation.size;
    step.order = operation.order;
    step.operand = operation.operand;
    running_ = actor;
    take(actor, operation, option, step);
    step.result = operation.result;
    ++depth_;
    moved_.add(actor);
}

/// After a step, once whoever took it has announced the next.
[[gnu::always_inline]] inline void Machine::settle(Actor moved) {
    update_enabled(moved, steps_[depth_ - 1].touch);
    if (depth_ >= livelock_depth) [[unlikely]]
        look_for_livelock();
    if (depth_ == options_.most_steps && !status_.enabled.empty()) [[unlikely]] {
        cut_ = true;
        status_.enabled = {};
    }
}

void Machine::step(Actor actor, unsigned option) {
    Machine* const outer = std::exchange(current_, this);
    if (journals_)
        begin_undo(actor);
    take_step(actor, option);
    if (actor < first_buffer && !violation_)
        run_fiber(actor);
    running_ = nobody;
    settle(actor);
    if (journals_)
        journal_.save_heap(Arena::first_byte);
    current_ = outer;
}

void Machine::run(Chooser& chooser) {
    MOAT_CHECK(!journals_, "steps that could be undone are taken one by one");
    if (options_.allocated_bytes != nullptr || observer_ != nullptr) {
        while (!status_.enabled.empty()) {
            const Choice choice = chooser.choose(*this);
            step(choice.actor, choice.option);
        }
        return;
    }
    Machine* const outer = std::exchange(current_, this);
    while (!status_.enabled.empty()) {
        const Choice choice = chooser.choose(*this);
        take_step(choice.actor, choice.option);
        if (choice.actor >= first_buffer || violation_) {
            settle(choice.actor);
            continue;
        }
        chooser_ = &chooser;
        fibers_[choice.actor].pending = nullptr;
        switch_to_fiber(choice.actor);
        chooser_ = nullptr;
        if (std::exchange(unsettled_, false))
            settle(running_);
        if (violation_)
            status_.enabled = {};
    }
    running_ = nobody;
    current_ = outer;
}

/// On the stack of who has just moved and announced what comes next, or has ended.
void Machine::pass_on() {
    const Actor self = running_;
    Fiber& own = fibers_[self];
    check_stack(self, __builtin_frame_address(0));
    note_pending(self);
    // States are compared with every thread suspended: registers lie on its stack only then.
    unsettled_ = depth_ >= livelock_depth;
    if (!unsettled_) [[likely]]
        settle(self);
    while (!unsettled_ && !status_.enabled.empty()) {
        const Choice choice = chooser_->choose(*this);
        take_step(choice.actor, choice.option);
        if (choice.actor >= first_buffer || violation_) [[unlikely]] {
            settle(choice.actor);
            continue;
        }
        if (choice.actor != self) {
            sanitizers_[choice.actor].enter();
            moat_explore_switch(&own.stack, fibers_[choice.actor].stack);
        }
        return;
    }
    scheduler_sanitizer_.enter();
    moat_explore_switch(&own.stack, scheduler_);
}

inline void Machine::check_stack(Actor actor, const void* pointer) const {
    constexpr std::ptrdiff_t least_left = 4096;
    const std::byte* const bottom = arena_.stack_top(actor) - Arena::stack_bytes;
    MOAT_CHECK(static_cast<const std::byte*>(pointer) - bottom > least_left,
               "an explored thread fits its stack");
}

inline void Machine::switch_to_fiber(Actor actor) {
    scheduler_sanitizer_.begin_here();
    sanitizers_[actor].enter();
    moat_explore_switch(&scheduler_, fibers_[actor].stack);
}

void Machine::run_fiber(Actor actor) {
    running_ = actor;
    fibers_[actor].pending = nullptr;
    if (options_.allocated_bytes != nullptr) [[unlikely]]
        run_checked(actor);
    else
        switch_to_fiber(actor);
    running_ = nobody;
    check_stack(actor, fibers_[actor].stack);
    note_pending(actor);
}

/// A step in which the machine itself had to make room for plain accesses is not judged.
void Machine::run_checked(Actor actor) {
    const std::size_t before = options_.allocated_bytes();
    const std::size_t kept = plain_.capacity();
    switch_to_fiber(actor);
    if (options_.allocated_bytes() != before && plain_.capacity() == kept && !violation_)
        record(ViolationKind::memory, "memory from outside of the arena is kept or given back",
               actor);
}

inline void Machine::note_pending(Actor actor) {
    Fiber& fiber = fibers_[actor];
    const Nature before = fiber.nature;
    if (fiber.pending == nullptr) [[unlikely]] {
        status_.live.remove(actor);
        fiber.nature = Nature::plain;
    } else {
        fiber.nature = nature_of(fiber.pending->kind);
        if (fiber.nature == Nature::plain && model_ != nullptr)
            fiber.nature = Nature::waits;
        if (fiber.nature == Nature::pauses)
            fiber.paused_at = depth_;
    }
    if (fiber.nature == before)
        return;
    status_.of(before).remove(actor);
    status_.of(fiber.nature).add(actor);
}

inline void Machine::refresh_enabled(Actor actor) {
    const Nature nature = fibers_[actor].nature;
    const bool can_move = status_.live.contains(actor) && !status_.held.contains(actor) &&
                          (nature == Nature::plain || is_enabled(actor));
    status_.enabled.remove(actor);
    if (can_move)
        status_.enabled.add(actor);
}

inline void Machine::update_enabled(Actor moved, const Touch& touch) {
    if (violation_) [[unlikely]] {
        status_.enabled = {};
        return;
    }
    // Only the next thread can be like this one.
    if (status_.held.contains((moved + 1) % most_actors)) [[unlikely]] {
        status_.held.remove(moved + 1);
        refresh_enabled(moved + 1);
    }
    if (model_ != nullptr || !is_local(touch.kind)) [[unlikely]] {
        update_all_enabled();
        return;
    }
    if (is_lock(touch.kind))
        for (ActorSet rest = status_.of(Nature::locks); !rest.empty(); rest = rest.tail())
            if (arena_.offset_of(fibers_[rest.first()].pending->address) == touch.location)
                refresh_enabled(rest.first());
    for (ActorSet rest = status_.of(Nature::pauses); !rest.empty(); rest = rest.tail())
        refresh_enabled(rest.first());
    refresh_enabled(moved);
    if (status_.enabled.empty()) [[unlikely]]
        release_pauses();
}

void Machine::update_all_enabled() {
    const ActorSet restricted = status_.of(Nature::locks) | status_.of(Nature::pauses) |
                                status_.of(Nature::waits) | status_.of(Nature::chooses);
    status_.enabled = status_.live - restricted - status_.held;
    for (ActorSet rest = restricted - status_.held; !rest.empty(); rest = rest.tail())
        if (is_enabled(rest.first()))
            status_.enabled.add(rest.first());
    if (model_ != nullptr)
        status_.enabled = status_.enabled | model_->buffers();
    if (status_.enabled.empty())
        release_pauses();
}

/// Where nothing will change any more, those who wait for a change look once more.
void Machine::release_pauses() {
    status_.enabled = status_.enabled | (status_.of(Nature::pauses) - status_.held);
}

} // namespace moat::explore
