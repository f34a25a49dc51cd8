// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Snapshots: restores earlier states, any step of the path by the journal, or only the beginning by
// a copy. It restores world, scheduler and execution; explore/machine.hpp owns it.
#pragma once

#include "lab/explore/journal.hpp"
#include "lab/explore/scheduler.hpp"

#include <array>
#include <cstddef>
#include <vector>

namespace moat::explore {

class Snapshots {
  public:
    Snapshots(World& world, Scheduler& scheduler, Execution& execution, std::size_t most_steps)
        : world_(world), scheduler_(scheduler), execution_(execution), journal_(world.arena()),
          undo_(most_steps + 1) {}

    /// The present is depth 0. Unless `journals`, steps cannot be undone.
    void begin(bool journals) {
        journal_.begin();
        journals_ = journals;
        moved_ = {};
    }

    /// Whether single steps can be undone.
    [[nodiscard]] bool journals() const { return journals_; }

    /// From now on only the beginning can be restored, and steps are quicker. At depth 0.
    void keep_beginning_only();

    /// Before a step of `actor`, if `journals`.
    [[gnu::always_inline]] void before_step(Actor actor) {
        Undo& undo = undo_[execution_.depth()];
        undo.status = scheduler_.status();
        undo.journal = journal_.position();
        undo.heap_used = world_.arena().used();
        undo.plain = execution_.plain_accesses().size();
        if (actor >= first_buffer)
            return;
        undo.fiber = scheduler_.fiber(actor);
        journal_.save_stack(stack_of(undo.fiber), stack_size(actor, undo.fiber));
    }

    /// After it.
    void after_step() {
        journal_.save_heap(world_.changed_by(execution_.step_at(execution_.depth() - 1).touch));
    }

    /// `actor` takes a step, whether it can be undone or not.
    void note_moved(Actor actor) { moved_.add(actor); }

    /// Back to `depth`, less than the present one.
    void rewind(std::size_t depth);

  private:
    /// The undo record of one step, besides the journal's bytes.
    struct Undo {
        Scheduler::Status status;
        Journal::Position journal;
        std::size_t heap_used = 0;
        std::size_t plain = 0;
        Scheduler::Fiber fiber; ///< of a store buffer: of an earlier step
    };

    /// Everything at depth 0.
    struct Beginning {
        std::vector<std::byte> heap;
        std::array<std::vector<std::byte>, most_fibers> stacks;
        std::array<Scheduler::Fiber, most_fibers> fibers{};
        Scheduler::Status status;
    };

    void restore_beginning();

    [[nodiscard]] static std::byte* stack_of(const Scheduler::Fiber& fiber) {
        return static_cast<std::byte*>(fiber.stack);
    }

    [[nodiscard]] std::size_t stack_size(Actor actor, const Scheduler::Fiber& fiber) const {
        return static_cast<std::size_t>(world_.arena().stack_top(actor) - stack_of(fiber));
    }

    World& world_;
    Scheduler& scheduler_;
    Execution& execution_;
    Journal journal_;
    bool journals_ = true;
    std::vector<Undo> undo_;
    Beginning beginning_;
    ActorSet moved_; ///< since the beginning
};

} // namespace moat::explore
