// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Execution: what has happened so far: the steps taken, the accesses to plain variables, and what
// went wrong. It decides nothing; explore/machine.hpp owns it.
#pragma once

#include "lab/explore/actor.hpp"
#include "lab/explore/operation.hpp"
#include "lab/explore/violation.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::explore {

/// An access to a plain variable. It is no step, but two unordered ones are a violation.
struct PlainAccess {
    std::size_t depth = 0; ///< steps taken before it
    std::uint32_t location = 0;
    std::uint8_t actor = 0;
    bool is_write = false;
};

class Execution {
  public:
    explicit Execution(std::size_t most_steps)
        : steps_(most_steps + 1), enabled_at_(most_steps + 1) {}

    /// Forgets everything.
    void clear() {
        depth_ = 0;
        running_ = nobody;
        plain_.clear();
        violation_at_start_.reset();
        forgive();
    }

    /// From now on the present is depth 0, where a violation of the setup stays.
    void begin() { violation_at_start_ = violation_; }

    /// Forgets how the execution ended, on the way back to `depth`.
    void reopen(std::size_t depth) {
        forgive();
        if (depth == 0)
            violation_ = violation_at_start_;
    }

    /// Back to `depth`, when `plain` accesses to plain variables had happened.
    void rewind(std::size_t depth, std::size_t plain) {
        depth_ = depth;
        plain_.resize(plain);
    }

    [[nodiscard]] std::size_t depth() const { return depth_; }

    [[nodiscard]] const Step& step_at(std::size_t depth) const { return steps_[depth]; }

    /// The step that comes next, for the caller to fill in.
    [[nodiscard]] Step& begin_step(ActorSet enabled) {
        enabled_at_[depth_] = enabled;
        return steps_[depth_];
    }

    void end_step() { ++depth_; }

    /// The actor whose code runs, or `nobody` in the setup and the final check.
    [[nodiscard]] Actor running() const { return running_; }

    void set_running(Actor actor) { running_ = actor; }

    [[nodiscard]] const std::vector<PlainAccess>& plain_accesses() const { return plain_; }

    void reserve_plain(std::size_t count) { plain_.reserve(count); }

    void note_plain(std::uint32_t location, bool is_write) {
        plain_.push_back({depth_, location, static_cast<std::uint8_t>(running_), is_write});
    }

    [[nodiscard]] const std::optional<Violation>& violation() const { return violation_; }

    /// Keeps the first violation of an execution.
    void record(ViolationKind kind, std::string_view text, Actor actor,
                std::int32_t other_step = no_step) {
        if (!violation_)
            violation_ =
                Violation{kind, std::string(text), actor, depth_, other_step, no_step, no_step};
    }

    /// A violation that the judge of a finished execution found.
    void report(const Violation& found) { violation_ = found; }

    /// Whether the execution took too many steps and was cut.
    [[nodiscard]] bool is_cut() const { return cut_; }

    void cut() { cut_ = true; }

    /// The first step since `from` in which another actor changed something that a pause of `actor`
    /// waits for, or `no_step`.
    [[nodiscard]] std::int32_t change_since(std::size_t from, Actor actor) const;

    [[nodiscard]] std::int32_t last_step_of(Actor actor) const;

    /// Compares the state `hash` with the one at the latest depth that is a power of two, so that
    /// the same path always gets the same verdict (Brent's algorithm). Records a livelock if every
    /// enabled actor moved and the state repeated. If an enabled actor did not move, the circle is
    /// unfair, and no livelock.
    void look_for_livelock(std::uint64_t hash, ActorSet enabled);

  private:
    void forgive() {
        violation_.reset();
        cut_ = false;
    }

    std::vector<Step> steps_;
    std::vector<ActorSet> enabled_at_; ///< before each step
    std::size_t depth_ = 0;
    Actor running_ = nobody;
    std::vector<PlainAccess> plain_;
    std::optional<Violation> violation_;
    std::optional<Violation> violation_at_start_;
    bool cut_ = false;
    /// State hashes at depth 2^i of the present path.
    std::array<std::uint64_t, 16> landmarks_{};
};

} // namespace moat::explore
