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
    void before_step(Actor actor);

    /// After it.
    void after_step() { journal_.save_heap(Arena::first_byte); }

    /// `actor` takes a step, whether it can be undone or not.
    void note_moved(Actor actor) { moved_.add(actor); }

    /// Back to `depth`, less than the present one.
    void rewind(std::size_t depth);

  private:
    /// The undo record of one step, besides the journal's bytes.
    struct Undo {
        Scheduler::Status status;
        std::size_t journal = 0;
        std::size_t heap_used = 0;
        std::size_t plain = 0;
        Scheduler::Fiber fiber;
    };

    /// Everything at depth 0.
    struct Beginning {
        std::vector<std::byte> heap;
        std::array<std::vector<std::byte>, most_fibers> stacks;
        std::array<Scheduler::Fiber, most_fibers> fibers{};
        Scheduler::Status status;
    };

    void restore_beginning();

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
