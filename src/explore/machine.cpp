// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The machine's life: start, step, rewind, finish; and who is enabled. What an operation does to
// locks, RCU and the rest is in operations.cpp.
#include "moat/explore/machine.hpp"

#include "moat/explore/dependence.hpp"

#include <bit>
#include <cstring>
#include <initializer_list>
#include <utility>

namespace moat::explore {

namespace {

/// Executions that are shorter are not asked whether they go round in circles.
constexpr std::size_t livelock_depth = 64;

/// Reads stacks, and so what a sanitizer keeps between the variables there.
[[nodiscard, gnu::no_sanitize_address]] std::uint64_t
hash_bytes(const std::byte* from, std::size_t size, std::uint64_t hash) {
    for (std::size_t at = 0; at + 8 <= size; at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, from + at, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

/// A set of kinds, to ask quickly.
class KindSet {
  public:
    constexpr KindSet(std::initializer_list<Kind> members) {
        for (Kind each : members)
            bits_ |= std::uint64_t{1} << static_cast<unsigned>(each);
    }

    [[nodiscard]] constexpr bool contains(Kind kind) const {
        return (bits_ >> static_cast<unsigned>(kind) & 1) != 0;
    }

  private:
    static_assert(kinds <= 64);
    std::uint64_t bits_ = 0;
};

/// Operations that can have to wait.
constexpr KindSet can_block = {Kind::lock,      Kind::lock_shared, Kind::wait_end,
                               Kind::grace_end, Kind::reclaim,     Kind::barrier,
                               Kind::cancel,    Kind::fire,        Kind::pause};

/// Steps that concern at most those who wait at the same address, or for any change.
constexpr KindSet is_local = {
    Kind::load,        Kind::store,         Kind::exchange,    Kind::compare_exchange,
    Kind::fetch_add,   Kind::fetch_sub,     Kind::fetch_or,    Kind::fetch_and,
    Kind::lock,        Kind::try_lock,      Kind::try_in_vain, Kind::unlock,
    Kind::lock_shared, Kind::unlock_shared, Kind::choose,      Kind::allocate};

} // namespace

Machine::Machine(Program program, const MachineOptions& options)
    : program_(std::move(program)), options_(options), journal_(arena_) {
    if (options.memory_model == MemoryModelKind::tso)
        model_ = make_tso();
    if (options.memory_model == MemoryModelKind::c11)
        model_ = make_c11();
    steps_.resize(options.most_steps + 1);
    undo_.resize(options.most_steps + 1);
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
    end_ = {};
    names_.clear();
    enabled_ = blocking_ = live_ = {};
    depth_ = 0;
    plain_.clear();
    violation_.reset();
    cut_ = false;
    running_ = nobody;
    services_ = new (arena_.allocate(sizeof(Services), alignof(Services))) Services;
    services_->memory.failures_left = options_.failing_allocations;
    if (model_ != nullptr)
        model_->start(*this);
    plain_options_ = model_ == nullptr && options_.failing_allocations == 0;
    heap_begin_ = arena_.used();

    Setup setup(*this);
    program_(setup);
    heap_end_ = arena_.used();
    for (Actor actor = 0; actor != thread_count_ && !violation_; ++actor)
        start_fiber(actor);
    start_fiber(reclaimer);
    start_fiber(timer_service);
    update_all_enabled();
    journal_.begin();
    journals_ = options_.restoration == Restoration::snapshots;
    moved_ = {};
    current_ = outer;
}

void Machine::start_fiber(Actor actor) {
    sanitizers_[actor].begin(arena_.stack_top(actor) - Arena::stack_bytes, Arena::stack_bytes);
    fibers_[actor] = {make_fiber(arena_.stack_top(actor), &fiber_main), nullptr, 0};
    live_.add(actor);
    run_fiber(actor);
}

void Machine::run_fiber(Actor actor) {
    constexpr std::ptrdiff_t least_stack_left = 4096;
    Fiber& fiber = fibers_[actor];
    running_ = actor;
    fiber.pending = nullptr;
    if (options_.allocated_bytes != nullptr) [[unlikely]] {
        run_checked(actor);
    } else {
        scheduler_sanitizer_.begin_here();
        sanitizers_[actor].enter();
        moat_explore_switch(&scheduler_, fiber.stack);
    }
    running_ = nobody;
    const std::byte* const bottom = arena_.stack_top(actor) - Arena::stack_bytes;
    MOAT_CHECK(static_cast<std::byte*>(fiber.stack) - bottom > least_stack_left,
               "an explored thread fits its stack");
    note_pending(actor);
}

void Machine::run_checked(Actor actor) {
    const std::size_t before = options_.allocated_bytes();
    scheduler_sanitizer_.begin_here();
    sanitizers_[actor].enter();
    moat_explore_switch(&scheduler_, fibers_[actor].stack);
    if (options_.allocated_bytes() != before && !violation_)
        record(ViolationKind::memory, "memory from outside of the arena is kept or given back",
               actor);
}

void Machine::note_pending(Actor actor) {
    const Operation* const pending = fibers_[actor].pending;
    blocking_.remove(actor);
    if (pending == nullptr) [[unlikely]] {
        live_.remove(actor);
        return;
    }
    if (can_block.contains(pending->kind) || model_ != nullptr)
        blocking_.add(actor);
    if (pending->kind == Kind::pause)
        fibers_[actor].paused_at = depth_;
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
    machine.scheduler_sanitizer_.enter();
    moat_explore_switch(&machine.fibers_[actor].stack, machine.scheduler_);
    MOAT_CHECK(false, "a thread that has ended does not go on");
}

void Machine::step(Actor actor, unsigned option) {
    Machine* const outer = std::exchange(current_, this);
    Step& step = steps_[depth_];
    step.actor = static_cast<std::uint8_t>(actor);
    step.option = static_cast<std::uint8_t>(option);
    step.cause = no_step;
    step.reads_from = no_step;
    Undo& undo = undo_[depth_];
    undo.enabled = enabled_;
    if (journals_)
        undo = {enabled_,
                journal_.position(),
                arena_.used(),
                plain_.size(),
                actor < first_buffer ? fibers_[actor] : Fiber(),
                blocking_,
                live_};
    if (actor >= first_buffer) {
        step.touch = model_->buffer_touch(actor);
        model_->flush(actor, step);
        ++depth_;
    } else {
        step_fiber(actor, option, step);
    }
    update_enabled(actor, step.touch);
    if (journals_)
        journal_.save_heap(Arena::first_byte);
    if (depth_ >= livelock_depth) [[unlikely]]
        look_for_livelock();
    if (depth_ == options_.most_steps && !enabled_.empty()) [[unlikely]] {
        cut_ = true;
        enabled_ = {};
    }
    current_ = outer;
}

void Machine::step_fiber(Actor actor, unsigned option, Step& step) {
    Fiber& fiber = fibers_[actor];
    const auto* const stack = static_cast<std::byte*>(fiber.stack);
    if (journals_)
        journal_.save_stack(stack, static_cast<std::size_t>(arena_.stack_top(actor) - stack));
    Operation& operation = *fiber.pending;
    step.touch = touch_of(actor, operation);
    step.size = operation.size;
    step.order = operation.order;
    step.operand = operation.operand;
    running_ = actor;
    take(actor, operation, option, step);
    running_ = nobody;
    step.result = operation.result;
    ++depth_;
    moved_.add(actor);
    if (!violation_)
        run_fiber(actor);
}

void Machine::rewind_to_start_only() {
    MOAT_CHECK(depth_ == 0, "the present is the beginning");
    if (options_.restoration == Restoration::replay)
        return;
    journals_ = false;
    beginning_ = {};
    beginning_.heap.assign(arena_.base(), arena_.base() + arena_.used());
    for (ActorSet rest = live_; !rest.empty(); rest = rest.tail()) {
        const Actor actor = rest.first();
        beginning_.stacks[actor].assign(static_cast<std::byte*>(fibers_[actor].stack),
                                        arena_.stack_top(actor));
    }
    beginning_.fibers = fibers_;
    beginning_.enabled = enabled_;
    beginning_.blocking = blocking_;
    beginning_.live = live_;
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
    enabled_ = beginning_.enabled;
    blocking_ = beginning_.blocking;
    live_ = beginning_.live;
    moved_ = {};
    plain_.clear();
    depth_ = 0;
}

void Machine::rewind(std::size_t depth) {
    MOAT_CHECK(depth <= depth_, "a rewind goes back");
    violation_.reset();
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
    enabled_ = undo.enabled;
    blocking_ = undo.blocking;
    live_ = undo.live;
    depth_ = depth;
}

Touch Machine::touch_of(Actor actor, const Operation& operation) const {
    Touch touch = {operation.kind, nowhere, 0, {}};
    if (operation.address != nullptr && arena_.contains(operation.address))
        touch.location = arena_.offset_of(operation.address);
    if (operation.kind == Kind::grace_end)
        touch.who = ActorSet::of(actor);
    if (operation.kind == Kind::read_end)
        for (Actor waiter = 0; waiter != most_fibers; ++waiter)
            if (services_->rcu.waits_for[waiter].contains(actor))
                touch.who.add(waiter);
    if (operation.kind == Kind::free)
        touch.extent = static_cast<std::uint32_t>(operation.operand);
    return model_ == nullptr ? touch : model_->touch(operation, touch);
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

ActorSet Machine::unfinished() const {
    ActorSet waiting = live_;
    for (Actor service : {reclaimer, timer_service})
        if (live_.contains(service) && (fibers_[service].pending->kind == Kind::reclaim ||
                                        fibers_[service].pending->kind == Kind::fire))
            waiting.remove(service);
    return waiting;
}

void Machine::refresh_enabled(Actor actor) {
    enabled_.remove(actor);
    if (live_.contains(actor) && (!blocking_.contains(actor) || is_enabled(actor)))
        enabled_.add(actor);
}

void Machine::update_enabled(Actor moved, const Touch& touch) {
    if (violation_) [[unlikely]] {
        enabled_ = {};
        return;
    }
    if (model_ != nullptr || !is_local.contains(touch.kind)) {
        update_all_enabled();
        return;
    }
    refresh_enabled(moved);
    for (ActorSet rest = blocking_ - ActorSet::of(moved); !rest.empty(); rest = rest.tail()) {
        const Operation& waits = *fibers_[rest.first()].pending;
        if (waits.kind == Kind::pause || arena_.offset_of(waits.address) == touch.location)
            refresh_enabled(rest.first());
    }
    if (enabled_.empty())
        release_pauses();
}

void Machine::update_all_enabled() {
    enabled_ = live_ - blocking_;
    for (ActorSet rest = blocking_; !rest.empty(); rest = rest.tail())
        if (is_enabled(rest.first()))
            enabled_.add(rest.first());
    if (model_ != nullptr)
        enabled_ = enabled_ | model_->buffers();
    if (enabled_.empty())
        release_pauses();
}

/// Where nothing will change any more, those who wait for a change look once more.
void Machine::release_pauses() {
    for (ActorSet rest = blocking_; !rest.empty(); rest = rest.tail())
        if (fibers_[rest.first()].pending->kind == Kind::pause)
            enabled_.add(rest.first());
}

void Machine::finish() {
    if (violation_ || cut_)
        return;
    Machine* const outer = std::exchange(current_, this);
    const ActorSet left = unfinished();
    if (!left.empty()) {
        std::string text = "no thread can move:";
        for (ActorSet rest = left; !rest.empty(); rest = rest.tail()) {
            const Touch touch = pending_touch(rest.first());
            text.append(" ").append(actor_name(rest.first()));
            text.append(" waits for ").append(explore::name(touch.kind));
            text.append(" ").append(location_name(touch.location)).append(";");
        }
        text.pop_back();
        record(ViolationKind::deadlock, text, left.first());
    } else if (end_.run != nullptr) {
        const std::size_t used = arena_.used();
        end_.run(end_.it);
        if (journals_)
            journal_.discard();
        arena_.shrink(used);
    }
    current_ = outer;
}

std::uint64_t Machine::hash_of_everything() const {
    const std::size_t begin = arena_.offset_of(services_);
    std::uint64_t hash = hash_bytes(arena_.base() + begin, arena_.used() - begin, 0);
    for (ActorSet rest = live_; !rest.empty(); rest = rest.tail()) {
        const Actor actor = rest.first();
        const auto* const stack = static_cast<const std::byte*>(fibers_[actor].stack);
        const auto size = static_cast<std::size_t>(arena_.stack_top(actor) - stack);
        hash = hash_bytes(stack, size, hash + actor + size);
    }
    return hash;
}

/// Compares with the latest depth that is a power of two, so that the same path is always judged
/// alike (Brent's algorithm). A circle in which somebody who could move never did is unfair, and
/// no livelock.
void Machine::look_for_livelock() {
    const auto landmark = static_cast<std::size_t>(std::bit_width(depth_) - 1);
    const std::size_t begin = std::size_t{1} << landmark;
    const std::uint64_t hash = hash_of_everything();
    if (depth_ == begin) {
        landmarks_[landmark] = hash;
        return;
    }
    if (hash != landmarks_[landmark] || enabled_.empty())
        return;
    ActorSet moved;
    for (std::size_t at = begin; at != depth_; ++at)
        moved.add(steps_[at].actor);
    ActorSet could_move;
    for (std::size_t at = begin; at != depth_; ++at)
        could_move = could_move | undo_[at].enabled;
    if ((could_move - moved).empty())
        record(ViolationKind::livelock,
               "all who can move do so for ever, and come back to the same state", moved.first());
    if (violation_)
        enabled_ = {};
}

std::uint64_t Machine::fingerprint() const {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::size_t at = heap_begin_; at < heap_end_; at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, arena_.base() + at, 8);
        const std::uint64_t offset = word - reinterpret_cast<std::uint64_t>(arena_.base());
        if (offset < Arena::bytes) // a pointer into the arena, wherever that lies
            word = offset;
        hash = (hash ^ word) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

std::string Machine::actor_name(Actor actor) const {
    if (actor < thread_count_)
        return thread_names_[actor];
    if (actor == reclaimer)
        return "reclaimer";
    if (actor == timer_service)
        return "timers";
    return actor_name(actor - first_buffer) + " buffer";
}

std::string Machine::location_name(std::uint32_t location) const {
    const auto found = names_.upper_bound(location);
    if (found != names_.begin()) {
        const auto& [begin, named] = *std::prev(found);
        if (begin == location)
            return named.text;
    }
    if (services_ != nullptr) {
        if (location == arena_.offset_of(&services_->rcu))
            return "rcu";
        if (location == arena_.offset_of(&services_->deferred))
            return "deferred";
        if (location == arena_.offset_of(&services_->time))
            return "time";
    }
    std::string text = "+";
    return text.append(std::to_string(location));
}

Decoder Machine::decoder(std::uint32_t location) const {
    const auto found = names_.find(location);
    return found == names_.end() ? nullptr : found->second.decoder;
}

void Setup::name(const void* address, std::string_view text, Decoder decoder) {
    machine_.names_[machine_.arena_.offset_of(address)] = {std::string(text), decoder};
}

void* Setup::allocate(std::size_t size, std::size_t align) {
    void* const memory = machine_.arena_.allocate(size, align);
    MOAT_CHECK(memory != nullptr, "the program's shared state fits the arena");
    return memory;
}

void Setup::add_thread(std::string_view name, void (*run)(void*), void* body) {
    MOAT_CHECK(machine_.thread_count_ < most_threads, "no more threads than the explorer holds");
    machine_.bodies_[machine_.thread_count_] = {run, body};
    machine_.thread_names_[machine_.thread_count_++] = name;
}

void Setup::set_end(void (*run)(void*), void* body) {
    machine_.end_ = {run, body};
}

} // namespace moat::explore
