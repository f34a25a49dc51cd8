// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The life of an execution: setup, start, end, failure. Steps are in step.cpp, going back in
// rewind.cpp, what an operation does in operations.cpp.
#include "lab/explore/machine.hpp"

#include <cstring>
#include <utility>

namespace moat::explore {

Machine::Machine(Program program, const MachineOptions& options)
    : program_(std::move(program)), options_(options), journal_(arena_) {
    if (options.memory_model == MemoryModelKind::tso)
        model_ = make_tso();
    if (options.memory_model == MemoryModelKind::c11)
        model_ = make_c11();
    steps_.resize(options.most_steps + 1);
    undo_.resize(options.most_steps + 1);
    enabled_at_.resize(options.most_steps + 1);
    if (options.allocated_bytes != nullptr)
        plain_.reserve(std::size_t{1} << 14); // else it grows while the program is watched
    moat::detail::check_handler.store(&on_failed_check, std::memory_order_relaxed);
}

Machine::~Machine() {
    for (SanitizerFiber& fiber : sanitizers_)
        fiber.end();
}

void Machine::start() {
    Machine* const outer = std::exchange(current_, this);
    arena_.shrink(Arena::first_byte);
    fibers_ = {};
    thread_count_ = 0;
    alike_ = {};
    end_ = {};
    names_.clear();
    status_ = {};
    depth_ = 0;
    plain_.clear();
    violation_.reset();
    cut_ = false;
    running_ = nobody;
    services_ = new (arena_.allocate(sizeof(Services), alignof(Services))) Services;
    services_->memory.failures_left = options_.failing_allocations;
    if (model_ != nullptr)
        model_->start(*this);
    heap_begin_ = arena_.used();

    Setup setup(*this);
    program_(setup);
    heap_end_ = arena_.used();
    for (Actor actor = 0; actor != thread_count_ && !violation_; ++actor)
        start_fiber(actor);
    start_fiber(reclaimer);
    start_fiber(timer_service);
    status_.held = alike_;
    update_all_enabled();
    if (violation_)
        status_.enabled = {};
    violation_at_start_ = violation_;
    journal_.begin();
    journals_ = options_.restoration == Restoration::snapshots;
    moved_ = {};
    current_ = outer;
}

void Machine::start_fiber(Actor actor) {
    std::byte* const top = arena_.stack_top(actor);
    sanitizers_[actor].begin(top - Arena::stack_bytes, Arena::stack_bytes);
    fibers_[actor] = {make_fiber(top, &fiber_main), nullptr, 0, Nature::plain};
    status_.live.add(actor);
    run_fiber(actor);
}

void Machine::fiber_main() {
    Machine& machine = current();
    const Actor actor = machine.running_;
    if (actor == reclaimer) {
        for (;;) {
            Operation take = {.kind = Kind::reclaim, .address = &machine.services_->deferred};
            machine.perform(take);
            auto* const head = reinterpret_cast<RcuHead*>(take.result);
            Operation begin = {.kind = Kind::grace_begin, .address = &machine.services_->rcu};
            machine.perform(begin);
            Operation end = {.kind = Kind::grace_end, .address = &machine.services_->rcu};
            machine.perform(end);
            head->call(head);
        }
    }
    if (actor == timer_service) {
        for (;;) {
            Operation fire = {.kind = Kind::fire, .address = &machine.services_->time};
            machine.perform(fire);
            const auto* const timer = reinterpret_cast<TimerState*>(fire.result);
            timer->callback(timer->context);
            Operation fired = {.kind = Kind::fired, .address = &machine.services_->time};
            machine.perform(fired);
        }
    }
    const Body body = machine.bodies_[actor];
    body.run(body.it);
    if (machine.services_->thread_exit != nullptr)
        machine.services_->thread_exit(actor);
    machine.fibers_[actor].pending = nullptr;
    if (machine.chooser_ != nullptr)
        machine.pass_on();
    machine.leave_fiber();
}

void Machine::leave_fiber() {
    StackPointer final_check = nullptr;
    scheduler_sanitizer_.enter();
    moat_explore_switch(running_ == nobody ? &final_check : &fibers_[running_].stack, scheduler_);
    MOAT_CHECK(scheduler_ == nullptr, "who has left for good does not go on");
}

void Machine::finish() {
    if (violation_ || cut_)
        return;
    const ActorSet left = unfinished();
    if (left.empty()) {
        run_end();
        return;
    }
    std::string text = "no thread can move:";
    for (ActorSet rest = left; !rest.empty(); rest = rest.tail()) {
        const Touch touch = pending_touch(rest.first());
        text.append(" ").append(actor_name(rest.first()));
        text.append(" waits for ").append(explore::name(touch.kind));
        text.append(" ").append(location_name(touch.location)).append(";");
    }
    text.pop_back();
    record(ViolationKind::deadlock, text, left.first());
}

/// The program's own check, on a stack of the arena, so that it can be left where it fails. What it
/// writes is taken back: it is no part of the state in which the execution ended.
void Machine::run_end() {
    if (end_.run == nullptr)
        return;
    Machine* const outer = std::exchange(current_, this);
    const std::size_t used = arena_.used();
    before_end_.assign(arena_.base() + Arena::first_byte, arena_.base() + used);
    std::byte* const top = arena_.stack_top(most_fibers);
    SanitizerFiber& sanitizer = sanitizers_[most_fibers];
    sanitizer.begin(top - Arena::stack_bytes, Arena::stack_bytes);
    const StackPointer stack = make_fiber(top, &end_main);
    scheduler_sanitizer_.begin_here();
    sanitizer.enter();
    moat_explore_switch(&scheduler_, stack);
    std::memcpy(arena_.base() + Arena::first_byte, before_end_.data(), before_end_.size());
    arena_.shrink(used);
    current_ = outer;
}

void Machine::end_main() {
    Machine& machine = current();
    machine.end_.run(machine.end_.it);
    machine.leave_fiber();
}

ActorSet Machine::unfinished() const {
    ActorSet waiting = status_.live;
    for (Actor service : {reclaimer, timer_service})
        if (waiting.contains(service) && (fibers_[service].pending->kind == Kind::reclaim ||
                                          fibers_[service].pending->kind == Kind::fire))
            waiting.remove(service);
    return waiting;
}

void Machine::record(ViolationKind kind, std::string_view text, Actor actor,
                     std::int32_t other_step) {
    if (!violation_)
        violation_ =
            Violation{kind, std::string(text), actor, depth_, other_step, no_step, no_step};
}

void Machine::fail(ViolationKind kind, std::string_view text) {
    record(kind, text, running_);
    if (!arena_.contains(__builtin_frame_address(0)))
        return;
    if (observer_ != nullptr)
        observer_->fails(running_);
    leave_fiber();
}

void Machine::record_failed_check(const char* condition, const char* message) {
    std::string text = "CHECK failed: ";
    record(ViolationKind::check, text.append(message).append(" (").append(condition).append(")"),
           running_);
}

/// A failed MOAT_CHECK of the engine ends the execution, not the explorer. The place in the source
/// is no part of the text, which a replay compares.
void Machine::on_failed_check(const char* condition, const char* message, const char*, int) {
    Machine* const machine = current_;
    if (machine == nullptr || !machine->arena_.contains(__builtin_frame_address(0)))
        return;
    machine->record_failed_check(condition, message);
    if (machine->observer_ != nullptr)
        machine->observer_->fails(machine->running_);
    machine->leave_fiber();
}

void* Machine::allocate(std::size_t size, std::size_t align) {
    void* const memory = arena_.allocate(size, align);
    if (memory != nullptr && observer_ != nullptr) [[unlikely]]
        observer_->allocates(running_, arena_.offset_of(memory), size);
    return memory;
}

} // namespace moat::explore
