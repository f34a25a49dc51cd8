// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Runs one program one step at a time, and back. It knows no strategy: who moves, the caller says.
// Strategies drive it; explore/explored_sync.hpp announces operations to it from inside.
#pragma once

#include "moat/core/check.hpp"
#include "moat/explore/actor.hpp"
#include "moat/explore/arena.hpp"
#include "moat/explore/fiber.hpp"
#include "moat/explore/journal.hpp"
#include "moat/explore/memory_model.hpp"
#include "moat/explore/operation.hpp"
#include "moat/explore/program.hpp"
#include "moat/explore/services.hpp"
#include "moat/explore/violation.hpp"

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

struct MachineOptions {
    MemoryModelKind memory_model = MemoryModelKind::sc;
    Restoration restoration = default_restoration;
    /// Steps of one execution; a longer one is cut and reported as cut.
    std::size_t most_steps = 5000;
    /// How many allocations of an execution may fail; each such allocation is a choice.
    unsigned failing_allocations = 0;
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

/// Told of each step when a failing schedule is run once more to be explained.
class Observer {
  public:
    virtual ~Observer() = default;
    /// On the stack of `actor`, which announces what it will do next.
    virtual void announces(const Machine& machine, Actor actor, const Operation& operation) = 0;
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
    [[nodiscard]] ActorSet enabled() const { return enabled_; }

    /// What `actor` would touch if it moved now; for those that are not enabled too, if unfinished.
    [[nodiscard]] Touch pending_touch(Actor actor) const;

    /// Who has neither ended nor is a service that waits for work.
    [[nodiscard]] ActorSet unfinished() const;

    /// Those, and the services that wait for work.
    [[nodiscard]] ActorSet live() const { return live_; }

    /// Lets `actor`, which is enabled, take its step in the way `option` < `options(actor)`.
    void step(Actor actor, unsigned option);

    [[nodiscard]] unsigned options(Actor actor) const {
        return plain_options_ ? 1 : count_options(actor);
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
        if (running_ == nobody) [[unlikely]] {
            perform_at_once(operation);
            return;
        }
        Fiber& fiber = fibers_[running_];
        fiber.pending = &operation;
        if (observer_ != nullptr) [[unlikely]]
            observer_->announces(*this, running_, operation);
        scheduler_sanitizer_.enter();
        moat_explore_switch(&fiber.stack, scheduler_);
    }

    /// Ends the execution. Does not return to a fiber.
    void fail(ViolationKind kind, std::string_view text, std::int32_t other_step = no_step);

    void note_plain(const void* address, bool is_write);

    [[nodiscard]] Arena& arena() { return arena_; }

    [[nodiscard]] Services& services() { return *services_; }

    [[nodiscard]] Actor running() const { return running_; }

    static constexpr Actor nobody = most_actors;

  private:
    friend class Setup;

    struct Fiber {
        StackPointer stack = nullptr;
        Operation* pending = nullptr; ///< nullptr: not started, or ended
        std::size_t paused_at = 0;    ///< depth, where it waits for a change
    };

    /// What undoes one step, besides the journal's bytes.
    struct Undo {
        ActorSet enabled; ///< noted in any case
        std::size_t journal = 0;
        std::size_t heap_used = 0;
        std::size_t plain = 0;
        Fiber fiber;
        ActorSet blocking;
        ActorSet live;
    };

    struct Named {
        std::string text;
        Decoder decoder = nullptr;
    };

    static void fiber_main();
    void run_fiber(Actor actor);
    void step_fiber(Actor actor, unsigned option, Step& step);
    void start_fiber(Actor actor);
    void perform_at_once(Operation& operation);
    void take(Actor actor, Operation& operation, unsigned option, Step& step);
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
    void update_enabled(Actor moved, const Touch& touch);
    void update_all_enabled();
    void refresh_enabled(Actor actor);
    void release_pauses();
    void run_checked(Actor actor);
    void note_pending(Actor actor);
    [[nodiscard]] bool check_address(const Operation& operation);

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
    std::array<SanitizerFiber, most_fibers> sanitizers_{};
    StackPointer scheduler_ = nullptr;
    SanitizerFiber scheduler_sanitizer_;
    Actor running_ = nobody;
    ActorSet enabled_;
    ActorSet blocking_; ///< fibers whose pending operation can be impossible
    ActorSet live_;     ///< fibers that have not ended
    bool plain_options_ = true;
    bool journals_ = true;

    /// Everything at depth 0, for those who rewind no less.
    struct Beginning {
        std::vector<std::byte> heap;
        std::array<std::vector<std::byte>, most_fibers> stacks;
        std::array<Fiber, most_fibers> fibers{};
        ActorSet enabled;
        ActorSet blocking;
        ActorSet live;
    };

    Beginning beginning_;
    ActorSet moved_; ///< since the beginning

    std::vector<Step> steps_;
    std::vector<Undo> undo_;
    std::size_t depth_ = 0;
    /// Everything's hash at depth 2^i on the present path.
    std::array<std::uint64_t, 16> landmarks_{};
    std::vector<PlainAccess> plain_;
    std::optional<Violation> violation_;
    bool cut_ = false;

    struct Body {
        void (*run)(void*) = nullptr;
        void* it = nullptr;
    };

    std::array<Body, most_threads> bodies_{};
    std::array<std::string, most_threads> thread_names_;
    std::size_t thread_count_ = 0;
    Body end_;
    std::map<std::uint32_t, Named> names_;
    Observer* observer_ = nullptr;
};

} // namespace moat::explore
