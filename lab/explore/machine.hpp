// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Runs one program one step at a time, and back. It knows no strategy: who moves, the caller says.
// Strategies drive it; explore/explored_sync.hpp announces operations to it from inside.
#pragma once

#include "moat/core/check.hpp"

#include "lab/explore/actor.hpp"
#include "lab/explore/arena.hpp"
#include "lab/explore/fiber.hpp"
#include "lab/explore/journal.hpp"
#include "lab/explore/memory_model.hpp"
#include "lab/explore/operation.hpp"
#include "lab/explore/program.hpp"
#include "lab/explore/services.hpp"
#include "lab/explore/violation.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
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
    /// Somebody who is enabled, and one of his options. Called on any stack of the arena.
    virtual Choice choose(const Machine& machine) = 0;
};

/// What is made of threads that are alike (Setup::thread): exchanging two of them in a schedule
/// gives another schedule, with the same outcome.
enum class Symmetry : std::uint8_t {
    ignored, ///< both are schedules
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
    /// Bytes that the process has from its allocator. Where it is given, a step that keeps memory
    /// from outside of the arena is a violation: nothing would restore that.
    std::size_t (*allocated_bytes)() = nullptr;
};

/// An access to a plain variable; no step, but two unordered ones are a violation.
struct PlainAccess {
    std::size_t depth = 0; ///< steps taken before it
    std::uint32_t location = 0;
    std::uint8_t actor = 0;
    bool is_write = false;
};

/// Watches a schedule that is run once more to be explained. Called on the stack of whom it is
/// about, so that the stack can be walked; `actor` is `Machine::nobody` in the setup and the final
/// check.
class Observer {
  public:
    virtual ~Observer() = default;
    /// `actor` announces the operation of its next step.
    virtual void announces(Actor actor) = 0;
    /// It accesses a plain variable.
    virtual void accesses_plain(Actor actor) = 0;
    /// It got `size` bytes of the arena at offset `begin`.
    virtual void allocates(Actor actor, std::uint32_t begin, std::size_t size) = 0;
    /// It ends the execution, with a violation.
    virtual void fails(Actor actor) = 0;
};

class Machine {
  public:
    Machine(Program program, const MachineOptions& options);
    ~Machine();
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    /// Runs the setup and brings every thread to its first operation: depth 0.
    void start();

    /// Back to depth 0, or to any depth that was passed on the way to the present one.
    void rewind(std::size_t depth);

    /// After this only `rewind(0)` is possible, and steps are quicker. To be called at depth 0.
    void rewind_to_start_only();

    [[nodiscard]] std::size_t depth() const { return depth_; }

    /// The steps taken, oldest first.
    [[nodiscard]] const Step& step_at(std::size_t depth) const { return steps_[depth]; }

    /// Whoever could move now; empty when the execution has ended, well or not.
    [[nodiscard]] ActorSet enabled() const { return status_.enabled; }

    /// The thread that must take its first step before `actor` may, by symmetry; or `nobody`.
    [[nodiscard]] Actor begins_after(Actor actor) const {
        return alike_.contains(actor) ? actor - 1 : nobody;
    }

    /// Who may not begin yet, by symmetry.
    [[nodiscard]] ActorSet held() const { return status_.held; }

    /// What `actor` would touch if it moved now; for those that are not enabled too, if unfinished.
    [[nodiscard]] Touch pending_touch(Actor actor) const;

    /// Who has neither ended nor is a service that waits for work.
    [[nodiscard]] ActorSet unfinished() const;

    /// Those, and the services that wait for work.
    [[nodiscard]] ActorSet live() const { return status_.live; }

    /// Lets `actor`, which is enabled, take its step in the way `option` < `options(actor)`.
    void step(Actor actor, unsigned option);

    /// Steps until nobody is enabled, as `chooser` says. The same as `step` by `step`, but decided
    /// on the stack of who has just moved: at most one switch of stacks a step, not two. Not while
    /// steps can be undone: `rewind_to_start_only`.
    void run(Chooser& chooser);

    [[nodiscard]] unsigned options(Actor actor) const {
        return (status_.of(Nature::chooses) | status_.of(Nature::waits)).contains(actor)
                   ? count_options(actor)
                   : 1;
    }

    /// Not null once something is wrong; the execution has then ended.
    [[nodiscard]] const std::optional<Violation>& violation() const { return violation_; }

    /// Whether the execution was cut because it took too many steps.
    [[nodiscard]] bool cut() const { return cut_; }

    /// To be called when nobody is enabled: looks for a deadlock, then runs the program's own
    /// check.
    void finish();

    /// A number that equal final states share: what the setup made, as it is now.
    [[nodiscard]] std::uint64_t fingerprint() const;

    /// `value`, or what stands for it in every run where it is an address within the arena.
    [[nodiscard]] std::uint64_t portable(std::uint64_t value) const {
        const std::uint64_t offset = value - reinterpret_cast<std::uint64_t>(arena_.base());
        return offset < Arena::bytes ? offset : value;
    }

    /// A violation that a look at the finished execution found.
    void report(const Violation& found) { violation_ = found; }

    /// Calls `look` so that it can read the program's shared state as the program does.
    template <class Look>
    void inspect(Look look) {
        Machine* const outer = std::exchange(current_, this);
        look();
        current_ = outer;
    }

    [[nodiscard]] const MachineOptions& options() const { return options_; }

    [[nodiscard]] const std::vector<PlainAccess>& plain_accesses() const { return plain_; }

    [[nodiscard]] std::string actor_name(Actor actor) const;
    /// "pud", or "+0x48" where nobody named it.
    [[nodiscard]] std::string location_name(std::uint32_t location) const;
    [[nodiscard]] Decoder decoder(std::uint32_t location) const;

    [[nodiscard]] std::size_t threads() const { return thread_count_; }

    void observe(Observer* observer) { observer_ = observer; }

    // For the policy, from inside a fiber or the setup.

    [[nodiscard]] static Machine& current() { return *current_; }

    /// Announces, lets the scheduler decide, and returns when the step was taken. During setup and
    /// the final check it is taken at once.
    void perform(Operation& operation) {
        if (chooser_ != nullptr) {
            fibers_[running_].pending = &operation;
            pass_on();
            return;
        }
        if (running_ == nobody) [[unlikely]] {
            perform_at_once(operation);
            return;
        }
        Fiber& fiber = fibers_[running_];
        fiber.pending = &operation;
        if (observer_ != nullptr) [[unlikely]]
            observer_->announces(running_);
        scheduler_sanitizer_.enter();
        moat_explore_switch(&fiber.stack, scheduler_);
    }

    /// Ends the execution. Does not return, except in the setup.
    void fail(ViolationKind kind, std::string_view text);

    /// Ends the execution at this step: the program needs more than the explorer holds.
    void exceed(std::string_view what) { record(ViolationKind::memory, what, running_); }

    void note_plain(const void* address, bool is_write);

    /// Zeroed memory of the arena; nullptr when that is used up. `align` is a power of two.
    [[nodiscard]] void* allocate(std::size_t size, std::size_t align);

    [[nodiscard]] Arena& arena() { return arena_; }

    [[nodiscard]] Services& services() { return *services_; }

    [[nodiscard]] Actor running() const { return running_; }

    static constexpr Actor nobody = most_actors;

  private:
    friend class Setup;

    /// What a pending operation means for who is enabled, and in how many ways.
    enum class Nature : std::uint8_t {
        plain,   ///< always possible, in one way
        locks,   ///< possible when a lock is free
        pauses,  ///< possible when something has changed
        waits,   ///< for anything else
        chooses, ///< always possible, maybe in several ways
    };

    [[nodiscard]] static constexpr Nature nature_of(Kind kind);

    struct Fiber {
        StackPointer stack = nullptr;
        Operation* pending = nullptr; ///< nullptr: not started, or ended
        std::size_t paused_at = 0;    ///< depth, where it waits for a change
        Nature nature = Nature::plain;
    };

    /// Who has not ended, who can move, and who is about to do what.
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

    /// What undoes one step, besides the journal's bytes.
    struct Undo {
        Status status;
        std::size_t journal = 0;
        std::size_t heap_used = 0;
        std::size_t plain = 0;
        Fiber fiber;
    };

    struct Named {
        std::string text;
        Decoder decoder = nullptr;
    };

    static void fiber_main();
    static void end_main();
    static void on_failed_check(const char* condition, const char* message, const char* file,
                                int line);
    [[gnu::noinline]] void record_failed_check(const char* condition, const char* message);
    /// Does not return. No attribute says so, and no compiler may find out: AddressSanitizer would
    /// take it that the stack ends.
    void leave_fiber();
    void run_fiber(Actor actor);
    void switch_to_fiber(Actor actor);
    void check_stack(Actor actor, const void* pointer) const;
    void pass_on();
    void take_step(Actor actor, unsigned option);
    void settle(Actor moved);
    void start_fiber(Actor actor);
    void run_end();
    void begin_undo(Actor actor);
    void perform_at_once(Operation& operation);
    void take(Actor actor, Operation& operation, unsigned option, Step& step);
    void take_access(Operation& operation);
    void take_other(Actor actor, Operation& operation, unsigned option, Step& step);
    void take_lock(Actor actor, Operation& operation);
    void take_service(Actor actor, Operation& operation, unsigned option, Step& step);
    void take_rcu(Actor actor, Operation& operation, Step& step);
    void take_time(Operation& operation);
    void take_free(const Operation& operation);
    void record(ViolationKind kind, std::string_view text, Actor actor,
                std::int32_t other_step = no_step);
    [[nodiscard]] std::int32_t change_since(Actor actor) const;
    [[nodiscard]] std::int32_t last_step_of(Actor actor) const;
    [[nodiscard]] std::uint64_t hash_of_everything() const;
    void look_for_livelock();
    void restore_beginning();
    [[nodiscard]] bool is_enabled(Actor actor) const;
    [[nodiscard]] unsigned count_options(Actor actor) const;
    [[nodiscard]] Touch touch_of(Actor actor, const Operation& operation) const;
    void add_extent(Actor actor, const Operation& operation, Touch& touch) const;
    void update_enabled(Actor moved, const Touch& touch);
    void update_all_enabled();
    void refresh_enabled(Actor actor);
    void release_pauses();
    void run_checked(Actor actor);
    void note_pending(Actor actor);
    [[nodiscard]] bool check_address(const Operation& operation);
    [[nodiscard]] bool look_for_freed(const Operation& operation);

    static inline constinit thread_local Machine* current_ = nullptr;

    Program program_;
    MachineOptions options_;
    Arena arena_;
    Journal journal_;
    std::unique_ptr<MemoryModel> model_; ///< nullptr for sc
    Services* services_ = nullptr;       ///< in the arena
    std::size_t heap_begin_ = 0;         ///< where the setup's part of the heap begins
    std::size_t heap_end_ = 0;           ///< and ends

    std::array<Fiber, most_fibers> fibers_{};
    std::array<SanitizerFiber, most_fibers + 1> sanitizers_{}; ///< one more for the final check
    StackPointer scheduler_ = nullptr;
    SanitizerFiber scheduler_sanitizer_;
    Actor running_ = nobody;
    Status status_;
    bool journals_ = true;

    /// Everything at depth 0, for those who rewind no less.
    struct Beginning {
        std::vector<std::byte> heap;
        std::array<std::vector<std::byte>, most_fibers> stacks;
        std::array<Fiber, most_fibers> fibers{};
        Status status;
    };

    Beginning beginning_;
    std::vector<std::byte> before_end_; ///< the heap, as the final check found it
    ActorSet moved_;                    ///< since the beginning

    std::vector<Step> steps_;
    std::vector<Undo> undo_;
    std::vector<ActorSet> enabled_at_; ///< before each step
    std::size_t depth_ = 0;
    /// Everything's hash at depth 2^i on the present path.
    std::array<std::uint64_t, 16> landmarks_{};
    /// Who moved last left it to the scheduler to settle that.
    bool unsettled_ = false;
    std::vector<PlainAccess> plain_;
    std::optional<Violation> violation_;
    std::optional<Violation> violation_at_start_; ///< before the first step
    bool cut_ = false;

    struct Body {
        void (*run)(void*) = nullptr;
        void* it = nullptr;
    };

    std::array<Body, most_threads> bodies_{};
    std::array<std::string, most_threads> thread_names_;
    std::size_t thread_count_ = 0;
    ActorSet alike_; ///< threads that are like the one before them, where symmetry matters
    Body end_;
    std::map<std::uint32_t, Named> names_;
    Observer* observer_ = nullptr;
    Chooser* chooser_ = nullptr; ///< while `run` runs
};

} // namespace moat::explore
