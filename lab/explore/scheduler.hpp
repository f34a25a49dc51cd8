// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Scheduler: the announced operations of the fibers, and so the enabled actors and their options.
// explore/machine.hpp moves actors, as a strategy decides.
#pragma once

#include "lab/explore/execution.hpp"
#include "lab/explore/fiber.hpp"
#include "lab/explore/world.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace moat::explore {

class Scheduler {
  public:
    /// Which actors a pending operation enables, and in how many ways.
    enum class Nature : std::uint8_t {
        plain,   ///< always possible, in one way
        locks,   ///< possible when a lock is free
        pauses,  ///< possible when something has changed
        waits,   ///< for anything else
        chooses, ///< always possible, maybe in several ways
    };

    struct Fiber {
        StackPointer stack = nullptr;
        Operation* pending = nullptr; ///< nullptr: not started, or ended
        std::size_t paused_at = 0;    ///< depth, where it waits for a change
        Nature nature = Nature::plain;
    };

    /// The live actors, the enabled ones, and their pending operations.
    struct Status {
        ActorSet live;
        ActorSet enabled;
        ActorSet held; ///< by symmetry: may not begin yet
        std::array<ActorSet, 5> natures;

        [[nodiscard]] ActorSet& of(Nature nature) {
            return natures[static_cast<std::size_t>(nature)];
        }

        [[nodiscard]] ActorSet of(Nature nature) const {
            return natures[static_cast<std::size_t>(nature)];
        }
    };

    Scheduler(const World& world, const Execution& execution)
        : world_(world), execution_(execution) {}

    void clear() {
        fibers_ = {};
        status_ = {};
    }

    void add(Actor actor, StackPointer stack) {
        fibers_[actor] = {.stack = stack};
        status_.live.add(actor);
    }

    /// All fibers have announced their first operation; those in `held` wait for the one before.
    void begin(ActorSet held) {
        status_.held = held;
        update_all();
    }

    [[nodiscard]] Fiber& fiber(Actor actor) { return fibers_[actor]; }

    [[nodiscard]] const Status& status() const { return status_; }

    void restore(const Status& status) { status_ = status; }

    /// The execution has ended: no actor is enabled.
    void stop() { status_.enabled = {}; }

    [[nodiscard]] unsigned options(Actor actor) const {
        return (status_.of(Nature::chooses) | status_.of(Nature::waits)).contains(actor)
                   ? world_.options(actor, *fibers_[actor].pending)
                   : 1;
    }

    /// What `actor` would touch if it moved now; also for disabled actors, if unfinished.
    [[nodiscard]] Touch pending_touch(Actor actor) const;

    /// The actors that have not ended, without services that wait for work.
    [[nodiscard]] ActorSet unfinished() const;

    /// The step that ended the pause of `actor`, or `no_step`.
    [[nodiscard]] std::int32_t end_of_pause(Actor actor) const {
        return execution_.change_since(fibers_[actor].paused_at, actor);
    }

    /// After `actor` announced its next operation, or ended.
    void note_pending(Actor actor) {
        Fiber& fiber = fibers_[actor];
        const Nature before = fiber.nature;
        if (fiber.pending == nullptr) [[unlikely]] {
            status_.live.remove(actor);
            fiber.nature = Nature::plain;
        } else {
            fiber.nature = nature_of(fiber.pending->kind);
            if (fiber.nature == Nature::plain && world_.model() != nullptr)
                fiber.nature = Nature::waits;
            if (fiber.nature == Nature::pauses)
                fiber.paused_at = execution_.depth();
        }
        if (fiber.nature == before)
            return;
        status_.of(before).remove(actor);
        status_.of(fiber.nature).add(actor);
    }

    /// The enabled actors after a step of `moved`, whose next operation is noted.
    [[gnu::always_inline]] void update(Actor moved, const Touch& touch) {
        // Only the next thread can be like this one.
        if (status_.held.contains((moved + 1) % most_actors)) [[unlikely]] {
            status_.held.remove(moved + 1);
            refresh(moved + 1);
        }
        if (world_.model() != nullptr || !World::is_local(touch.kind)) [[unlikely]] {
            update_all();
            return;
        }
        if (is_lock(touch.kind))
            for (ActorSet rest = status_.of(Nature::locks); !rest.empty(); rest = rest.tail())
                if (world_.arena().offset_of(fibers_[rest.first()].pending->address) ==
                    touch.location)
                    refresh(rest.first());
        for (ActorSet rest = status_.of(Nature::pauses); !rest.empty(); rest = rest.tail())
            refresh(rest.first());
        refresh(moved);
        if (status_.enabled.empty()) [[unlikely]]
            release_pauses();
    }

    /// Continues `hash` over the stacks of all live actors.
    [[nodiscard]] std::uint64_t hash_stacks(std::uint64_t hash) const;

  private:
    [[nodiscard]] static constexpr Nature nature_of(Kind kind) {
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

    void refresh(Actor actor) {
        const Nature nature = fibers_[actor].nature;
        const bool can_move = status_.live.contains(actor) && !status_.held.contains(actor) &&
                              (nature == Nature::plain || is_enabled(actor));
        status_.enabled.remove(actor);
        if (can_move)
            status_.enabled.add(actor);
    }

    [[nodiscard]] bool is_enabled(Actor actor) const;
    void update_all();
    void release_pauses();

    const World& world_;
    const Execution& execution_;
    std::array<Fiber, most_fibers> fibers_{};
    Status status_;
};

} // namespace moat::explore
