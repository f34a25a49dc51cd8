// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The life of an execution: setup, start, end, failure. Its steps are in step.cpp.
#include "lab/explore/machine.hpp"

#include <cstring>
#include <utility>

namespace moat::explore {

Machine::Machine(Program program, const MachineOptions& options)
    : program_(std::move(program)), options_(options), execution_(options.most_steps),
      world_(options.memory_model, execution_), scheduler_(world_, execution_),
      snapshots_(world_, scheduler_, execution_, options.most_steps), switch_(world_.arena()) {
    if (options.allocated_bytes != nullptr)
        execution_.reserve_plain(std::size_t{1}
                                 << 14); // else it grows while the program is watched
    moat::detail::check_handler.store(&on_failed_check, std::memory_order_relaxed);
}

void Machine::start() {
    Machine* const outer = std::exchange(current_, this);
    execution_.clear();
    scheduler_.clear();
    threads_ = {};
    world_.clear(options_.failing_allocations);
    Setup setup(*this);
    program_(setup);
    world_.end_setup();
    for (Actor actor = 0; actor != threads_.count && !violation(); ++actor)
        start_fiber(actor);
    start_fiber(reclaimer);
    start_fiber(timer_service);
    scheduler_.begin(threads_.alike);
    if (violation())
        scheduler_.stop();
    execution_.begin();
    snapshots_.begin(options_.restoration == Restoration::snapshots);
    current_ = outer;
}

void Machine::rewind(std::size_t depth) {
    MOAT_CHECK(depth <= this->depth(), "a rewind goes back");
    execution_.reopen(depth);
    if (depth == this->depth())
        return;
    if (options_.restoration == Restoration::snapshots) {
        snapshots_.rewind(depth);
        return;
    }
    std::vector<std::pair<Actor, unsigned>> prefix;
    for (std::size_t at = 0; at != depth; ++at)
        prefix.emplace_back(step_at(at).actor, step_at(at).option);
    start();
    for (const auto& [actor, option] : prefix)
        step(actor, option);
}

void Machine::rewind_to_start_only() {
    MOAT_CHECK(depth() == 0, "the present is the beginning");
    if (options_.restoration == Restoration::snapshots)
        snapshots_.keep_beginning_only();
}

void Machine::start_fiber(Actor actor) {
    scheduler_.add(actor, switch_.make(actor, &fiber_main));
    run_fiber(actor);
}

void Machine::fiber_main() {
    Machine& machine = current();
    const Actor actor = machine.running();
    if (actor == reclaimer)
        reclaim(machine);
    if (actor == timer_service)
        fire_timers(machine);
    const Threads::Body body = machine.threads_.bodies[actor];
    body.run(body.it);
    if (machine.services().thread_exit != nullptr)
        machine.services().thread_exit(actor);
    machine.scheduler_.fiber(actor).pending = nullptr;
    if (machine.chooser_ != nullptr)
        machine.pass_on();
    machine.leave_fiber();
}

void Machine::reclaim(Machine& machine) {
    for (;;) {
        Operation take = {.kind = Kind::reclaim, .address = &machine.services().deferred};
        machine.perform(take);
        auto* const head = reinterpret_cast<RcuHead*>(take.result);
        Operation begin = {.kind = Kind::grace_begin, .address = &machine.services().rcu};
        machine.perform(begin);
        Operation end = {.kind = Kind::grace_end, .address = &machine.services().rcu};
        machine.perform(end);
        head->call(head);
    }
}

void Machine::fire_timers(Machine& machine) {
    for (;;) {
        Operation fire = {.kind = Kind::fire, .address = &machine.services().time};
        machine.perform(fire);
        const auto* const timer = reinterpret_cast<TimerState*>(fire.result);
        timer->callback(timer->context);
        Operation fired = {.kind = Kind::fired, .address = &machine.services().time};
        machine.perform(fired);
    }
}

void Machine::leave_fiber() {
    StackPointer final_check = nullptr;
    switch_.leave(running() == nobody ? final_check : scheduler_.fiber(running()).stack);
    MOAT_CHECK(program_ == nullptr, "a fiber that has left does not go on");
}

void Machine::finish() {
    if (violation() || cut())
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
    execution_.record(ViolationKind::deadlock, text, left.first());
}

/// The program's own check, on a stack of the arena, so that a failure can leave it. Its writes are
/// undone: they are no part of the state in which the execution ended.
void Machine::run_end() {
    if (threads_.end.run == nullptr)
        return;
    Machine* const outer = std::exchange(current_, this);
    Arena& arena = world_.arena();
    const std::vector<std::byte> before(arena.base() + Arena::first_byte,
                                        arena.base() + arena.used());
    const std::size_t used = arena.used();
    switch_.enter(most_fibers, switch_.make(most_fibers, &end_main));
    std::memcpy(arena.base() + Arena::first_byte, before.data(), before.size());
    arena.shrink(used);
    current_ = outer;
}

void Machine::end_main() {
    Machine& machine = current();
    machine.threads_.end.run(machine.threads_.end.it);
    machine.leave_fiber();
}

void Machine::fail(ViolationKind kind, std::string_view text) {
    execution_.record(kind, text, running());
    if (!world_.arena().contains(__builtin_frame_address(0)))
        return;
    if (observer_ != nullptr)
        observer_->fails(running());
    leave_fiber();
}

void Machine::record_failed_check(const char* condition, const char* message) {
    std::string text = "CHECK failed: ";
    text.append(message).append(" (").append(condition).append(")");
    execution_.record(ViolationKind::check, text, running());
}

/// A failed MOAT_CHECK of the engine ends the execution, not the explorer. The text omits the place
/// in the source, because a replay compares it.
void Machine::on_failed_check(const char* condition, const char* message, const char*, int) {
    Machine* const machine = current_;
    if (machine == nullptr || !machine->arena().contains(__builtin_frame_address(0)))
        return;
    machine->record_failed_check(condition, message);
    if (machine->observer_ != nullptr)
        machine->observer_->fails(machine->running());
    machine->leave_fiber();
}

void* Machine::allocate(std::size_t size, std::size_t align) {
    void* const memory = world_.arena().allocate(size, align);
    if (memory != nullptr && observer_ != nullptr) [[unlikely]]
        observer_->allocates(running(), world_.arena().offset_of(memory), size);
    return memory;
}

} // namespace moat::explore
