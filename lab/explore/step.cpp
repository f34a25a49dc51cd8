// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One step: perform the announced operation of a thread, run it to its next announcement, and
// update the enabled actors. All that happens at every step is inlined here.
#include "lab/explore/machine.hpp"

#include <utility>

namespace moat::explore {

namespace {

/// Shorter executions are not searched for livelocks.
constexpr std::size_t livelock_depth = 64;

} // namespace

void Machine::note_plain(const void* address, bool is_write) {
    if (running() == nobody)
        return;
    if (observer_ != nullptr) [[unlikely]]
        observer_->accesses_plain(running());
    if (!world_.check_address({.address = const_cast<void*>(address)})) {
        if (observer_ != nullptr)
            observer_->fails(running());
        leave_fiber();
    }
    execution_.note_plain(world_.arena().offset_of(address), is_write);
}

/// Performs and records what `actor` announced; `actor` itself has not gone on yet.
[[gnu::always_inline]] inline void Machine::take_step(Actor actor, unsigned option) {
    Step& step = execution_.begin_step(enabled());
    step.actor = static_cast<std::uint8_t>(actor);
    step.option = static_cast<std::uint8_t>(option);
    step.cause = no_step;
    step.reads_from = no_step;
    if (actor >= first_buffer) [[unlikely]] {
        step.touch = world_.model()->buffer_touch(actor);
        world_.model()->flush(actor, step);
        execution_.end_step();
        return;
    }
    Operation& operation = *scheduler_.fiber(actor).pending;
    step.touch = world_.touch_of(actor, operation);
    step.size = operation.size;
    step.order = operation.order;
    step.operand = operation.operand;
    execution_.set_running(actor);
    world_.take(actor, operation, option, step);
    if (operation.kind == Kind::pause) [[unlikely]]
        step.cause = scheduler_.end_of_pause(actor);
    step.result = operation.result;
    execution_.end_step();
    snapshots_.note_moved(actor);
}

/// After a step, once its actor has announced the next.
[[gnu::always_inline]] inline void Machine::settle(Actor moved) {
    if (!violation()) [[likely]]
        scheduler_.update(moved, step_at(depth() - 1).touch);
    if (depth() >= livelock_depth) [[unlikely]]
        execution_.look_for_livelock(scheduler_.hash_stacks(world_.hash()), enabled());
    if (depth() == options_.most_steps && !enabled().empty() && !violation()) [[unlikely]] {
        execution_.cut();
        scheduler_.stop();
    }
    if (violation()) [[unlikely]]
        scheduler_.stop();
}

[[gnu::always_inline]] inline void Machine::resume(Actor actor) {
    execution_.set_running(actor);
    scheduler_.fiber(actor).pending = nullptr;
    if (options_.allocated_bytes != nullptr) [[unlikely]]
        run_checked(actor);
    else
        switch_.enter(actor, scheduler_.fiber(actor).stack);
    execution_.set_running(nobody);
    switch_.check_room(actor, scheduler_.fiber(actor).stack);
    scheduler_.note_pending(actor);
}

void Machine::step(Actor actor, unsigned option) {
    Machine* const outer = std::exchange(current_, this);
    const bool journals = snapshots_.journals();
    if (journals)
        snapshots_.before_step(actor);
    take_step(actor, option);
    if (actor < first_buffer && !violation())
        resume(actor);
    execution_.set_running(nobody);
    settle(actor);
    if (journals)
        snapshots_.after_step();
    current_ = outer;
}

void Machine::run(Chooser& chooser) {
    MOAT_CHECK(!snapshots_.journals(), "steps that could be undone are taken one by one");
    if (options_.allocated_bytes != nullptr || observer_ != nullptr) {
        while (!enabled().empty()) {
            const Choice choice = chooser.choose(*this);
            step(choice.actor, choice.option);
        }
        return;
    }
    Machine* const outer = std::exchange(current_, this);
    while (!enabled().empty()) {
        const Choice choice = chooser.choose(*this);
        take_step(choice.actor, choice.option);
        if (choice.actor >= first_buffer || violation()) {
            settle(choice.actor);
            continue;
        }
        chooser_ = &chooser;
        scheduler_.fiber(choice.actor).pending = nullptr;
        switch_.enter(choice.actor, scheduler_.fiber(choice.actor).stack);
        chooser_ = nullptr;
        if (std::exchange(unsettled_, false))
            settle(running());
        if (violation())
            scheduler_.stop();
    }
    execution_.set_running(nobody);
    current_ = outer;
}

/// On the stack of the actor that has just moved, and has announced its next operation or ended.
void Machine::pass_on() {
    const Actor self = running();
    Scheduler::Fiber& own = scheduler_.fiber(self);
    switch_.check_room(self, __builtin_frame_address(0));
    scheduler_.note_pending(self);
    // States are compared with every thread suspended: registers lie on its stack only then.
    unsettled_ = depth() >= livelock_depth;
    if (!unsettled_) [[likely]]
        settle(self);
    while (!unsettled_ && !enabled().empty()) {
        const Choice choice = chooser_->choose(*this);
        take_step(choice.actor, choice.option);
        if (choice.actor >= first_buffer || violation()) [[unlikely]] {
            settle(choice.actor);
            continue;
        }
        if (choice.actor != self)
            switch_.pass(own.stack, choice.actor, scheduler_.fiber(choice.actor).stack);
        return;
    }
    switch_.leave(own.stack);
}

void Machine::run_fiber(Actor actor) {
    resume(actor);
}

/// Does not judge a step in which the machine itself had to make room for plain accesses.
void Machine::run_checked(Actor actor) {
    const std::size_t before = options_.allocated_bytes();
    const std::size_t kept = plain_accesses().capacity();
    switch_.enter(actor, scheduler_.fiber(actor).stack);
    if (options_.allocated_bytes() != before && plain_accesses().capacity() == kept && !violation())
        execution_.record(ViolationKind::memory,
                          "memory from outside of the arena is kept or given back", actor);
}

} // namespace moat::explore
