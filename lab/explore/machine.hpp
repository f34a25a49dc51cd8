// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Machine: runs one program one step at a time, and back. Strategies drive it and decide who moves;
// explore/explored_sync.hpp announces operations to it from inside. World, scheduler, execution and
// snapshots are its parts.
#pragma once

#include "lab/explore/fiber_switch.hpp"
#include "lab/explore/program.hpp"
#include "lab/explore/scheduler.hpp"
#include "lab/explore/snapshots.hpp"
#include "lab/explore/threads.hpp"
#include "lab/explore/world.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::explore {

enum class Restoration : std::uint8_t {
    snapshots, ///< undo steps by the journal
    replay,    ///< run again from the setup: slower, and restores nothing
};

/// Snapshots restore stacks behind the back of a sanitizer, so its builds replay.
#if defined(MOAT_EXPLORE_ASAN) || defined(MOAT_EXPLORE_TSAN)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

inline constexpr Restoration default_restoration =
    sanitized ? Restoration::replay : Restoration::snapshots;

/// Decides a whole execution, step by step.
class Chooser {
  public:
    virtual ~Chooser() = default;
    /// An enabled actor and one of its options. Called on any stack of the arena.
    virtual Choice choose(const Machine& machine) = 0;
};

/// How to treat threads that are alike (Setup::thread): exchanging two of them in a schedule gives
/// another schedule with the same outcome.
enum class Symmetry : std::uint8_t {
    ignored, ///< explore both schedules
    ordered, ///< only the one in which they take their first steps in the order of their creation
};

struct MachineOptions {
    MemoryModelKind memory_model = MemoryModelKind::sc;
    Restoration restoration = default_restoration;
    /// Steps of one execution; a longer one is cut and reported as cut.
    std::size_t most_steps = 5000;
    /// How many allocations of an execution may fail; each such allocation is a choice.
    unsigned failing_allocations = 0;
    Symmetry symmetry = Symmetry::ignored;
    /// Returns the bytes that the process has from its allocator. If set, a step that keeps memory
    /// from outside the arena is a violation, since nothing would restore that memory.
    std::size_t (*allocated_bytes)() = nullptr;
};

/// Watches a schedule that is run once more to be explained. Called on the stack of `actor`, so
/// that the stack can be walked; `actor` is `nobody` in the setup and the final check.
class Observer {
  public:
    virtual ~Observer() = default;
    /// `actor` announces the operation of its next step.
    virtual void announces(Actor actor) = 0;
    /// `actor` accesses a plain variable.
    virtual void accesses_plain(Actor actor) = 0;
    /// `actor` allocated `size` bytes of the arena at offset `begin`.
    virtual void allocates(Actor actor, std::uint32_t begin, std::size_t size) = 0;
    /// `actor` ends the execution with a violation.
    virtual void fails(Actor actor) = 0;
};

class Machine {
  public:
    Machine(Program program, const MachineOptions& options);

    /// Runs the setup and brings every thread to its first operation: depth 0.
    void start();

    /// Back to depth 0, or to any depth that was passed on the way to the present one.
    void rewind(std::size_t depth);

    /// After this only `rewind(0)` is possible, and steps are quicker. Call it at depth 0.
    void rewind_to_start_only();

    [[nodiscard]] std::size_t depth() const { return execution_.depth(); }

    /// The steps taken, oldest first.
    [[nodiscard]] const Step& step_at(std::size_t depth) const { return execution_.step_at(depth); }

    /// The enabled actors; empty once the execution has ended, successfully or not.
    [[nodiscard]] ActorSet enabled() const { return scheduler_.status().enabled; }

    /// The thread that must take its first step before `actor` may, by symmetry; or `nobody`.
    [[nodiscard]] Actor begins_after(Actor actor) const {
        return threads_.alike.contains(actor) ? actor - 1 : nobody;
    }

    /// The actors that may not begin yet, by symmetry.
    [[nodiscard]] ActorSet held() const { return scheduler_.status().held; }

    /// What `actor` would touch if it moved now; also for disabled actors, if unfinished.
    [[nodiscard]] Touch pending_touch(Actor actor) const { return scheduler_.pending_touch(actor); }

    /// The actors that have not ended, without services that wait for work.
    [[nodiscard]] ActorSet unfinished() const { return scheduler_.unfinished(); }

    /// Those, and the services that wait for work.
    [[nodiscard]] ActorSet live() const { return scheduler_.status().live; }

    /// Lets `actor`, which is enabled, take its step in the way `option` < `options(actor)`.
    void step(Actor actor, unsigned option);

    /// Steps until no actor is enabled, as `chooser` decides. The same as `step` by `step`, but
    /// decided on the stack of the actor that has just moved: at most one switch of stacks a step,
    /// not two. Not while steps can be undone: `rewind_to_start_only`.
    void run(Chooser& chooser);

    [[nodiscard]] unsigned options(Actor actor) const { return scheduler_.options(actor); }

    /// Not null once the execution has violated something; it has then ended.
    [[nodiscard]] const std::optional<Violation>& violation() const {
        return execution_.violation();
    }

    /// Whether the execution was cut because it took too many steps.
    [[nodiscard]] bool cut() const { return execution_.is_cut(); }

    /// Call it when no actor is enabled: looks for a deadlock, then runs the program's own check.
    void finish();

    /// A number that equal final states share: what the setup made, as it is now.
    [[nodiscard]] std::uint64_t fingerprint() const { return world_.fingerprint(); }

    /// `value`; for an address within the arena, a number that is equal in every run.
    [[nodiscard]] std::uint64_t portable(std::uint64_t value) const {
        return world_.portable(value);
    }

    /// A violation found by the judge of the finished execution.
    void report(const Violation& found) { execution_.report(found); }

    /// Calls `look` so that it can read the program's shared state as the program does.
    template <class Look>
    void inspect(Look look) {
        Machine* const outer = std::exchange(current_, this);
        look();
        current_ = outer;
    }

    [[nodiscard]] const MachineOptions& options() const { return options_; }

    [[nodiscard]] const std::vector<PlainAccess>& plain_accesses() const {
        return execution_.plain_accesses();
    }

    [[nodiscard]] std::string actor_name(Actor actor) const { return threads_.name(actor); }

    /// "pud", or "+72" without a name.
    [[nodiscard]] std::string location_name(std::uint32_t location) const {
        return world_.name_of(location);
    }

    [[nodiscard]] Decoder decoder(std::uint32_t location) const { return world_.decoder(location); }

    [[nodiscard]] std::size_t threads() const { return threads_.count; }

    void observe(Observer* observer) { observer_ = observer; }

    // For the policy, from inside a fiber or the setup.

    [[nodiscard]] static Machine& current() { return *current_; }

    /// Announces, lets the strategy decide, and returns when the step was taken. During setup and
    /// the final check it is taken at once.
    void perform(Operation& operation) {
        const Actor self = execution_.running();
        if (chooser_ != nullptr) {
            scheduler_.fiber(self).pending = &operation;
            pass_on();
            return;
        }
        if (self == nobody) [[unlikely]] {
            world_.take_at_once(operation);
            return;
        }
        Scheduler::Fiber& fiber = scheduler_.fiber(self);
        fiber.pending = &operation;
        if (observer_ != nullptr) [[unlikely]]
            observer_->announces(self);
        switch_.leave(fiber.stack);
    }

    /// Ends the execution. Does not return, except in the setup.
    void fail(ViolationKind kind, std::string_view text);

    void note_plain(const void* address, bool is_write);

    /// Zeroed memory of the arena; nullptr when that is used up. `align` is a power of two.
    [[nodiscard]] void* allocate(std::size_t size, std::size_t align);

    [[nodiscard]] Arena& arena() { return world_.arena(); }

    [[nodiscard]] Services& services() { return world_.services(); }

    [[nodiscard]] Actor running() const { return execution_.running(); }

  private:
    friend class Setup;

    static void fiber_main();
    static void reclaim(Machine& machine);
    static void fire_timers(Machine& machine);
    static void end_main();
    static void on_failed_check(const char* condition, const char* message, const char* file,
                                int line);
    [[gnu::noinline]] void record_failed_check(const char* condition, const char* message);
    /// Does not return. It has no attribute for that, because AddressSanitizer would then expect
    /// the stack to end.
    void leave_fiber();
    void start_fiber(Actor actor);
    void run_fiber(Actor actor);
    void resume(Actor actor);
    void run_checked(Actor actor);
    void run_end();
    void take_step(Actor actor, unsigned option);
    void settle(Actor moved);
    void pass_on();

    static inline constinit thread_local Machine* current_ = nullptr;

    Program program_;
    MachineOptions options_;
    Execution execution_;
    World world_;
    Scheduler scheduler_;
    Snapshots snapshots_;
    FiberSwitch switch_;
    Threads threads_;
    Observer* observer_ = nullptr;
    Chooser* chooser_ = nullptr; ///< while `run` runs
    bool unsettled_ = false;     ///< the actor that moved last left `settle` to `run`
};

} // namespace moat::explore
