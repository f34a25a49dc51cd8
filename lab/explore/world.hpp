// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// World: the program's shared state (memory, locks, RCU, timers) and what an operation does to it.
// All of it lies in the arena. Scheduler and snapshots decide who moves and what is undone.
#pragma once

#include "lab/explore/arena.hpp"
#include "lab/explore/execution.hpp"
#include "lab/explore/memory_model.hpp"
#include "lab/explore/operation.hpp"
#include "lab/explore/program.hpp"
#include "lab/explore/services.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace moat::explore {

class World {
  public:
    World(MemoryModelKind kind, Execution& execution);

    /// An empty world, in which so many allocations may fail; the program's setup comes next.
    void clear(unsigned failing_allocations);

    /// What the setup made is what `fingerprint` looks at.
    void end_setup() { setup_end_ = arena_.used(); }

    [[nodiscard]] Arena& arena() { return arena_; }

    [[nodiscard]] const Arena& arena() const { return arena_; }

    /// For a change before the next step.
    [[nodiscard]] Services& services() {
        services_used_ = true;
        return *services_;
    }

    /// Where the part of the heap begins that a step may have changed. Only operations on the
    /// services, which lie in front, and callers of `services` change them.
    [[nodiscard]] std::size_t changed_by(const Touch& touch) {
        const bool all = touch.location < services_end_ || touch.kind == Kind::free;
        return std::exchange(services_used_, false) || all ? Arena::first_byte : services_end_;
    }

    /// nullptr for sequential consistency.
    [[nodiscard]] MemoryModel* model() const { return model_.get(); }

    [[nodiscard]] const Execution& execution() const { return execution_; }

    /// Whether locks, conditions, RCU, timers and the memory model let `actor` perform `operation`.
    [[nodiscard]] bool allows(Actor actor, const Operation& operation) const;

    /// In how many ways it can be performed.
    [[nodiscard]] unsigned options(Actor actor, const Operation& operation) const;

    [[nodiscard]] Touch touch_of(Actor actor, const Operation& operation) const {
        Touch touch = {operation.kind, nowhere, 0, {}};
        if (arena_.contains(operation.address)) [[likely]]
            touch.location = arena_.offset_of(operation.address);
        if (!is_local(operation.kind)) [[unlikely]]
            add_extent(actor, operation, touch);
        return model_ == nullptr ? touch : model_->touch(operation, touch);
    }

    /// The same before the step: a `try_lock` that would not get the lock has a kind of its own.
    [[nodiscard]] Touch pending_touch(Actor actor, const Operation& operation) const;

    /// Performs `operation`, writes its effects into `step`, and records what is wrong with it.
    [[gnu::always_inline]] void take(Actor actor, Operation& operation, unsigned option,
                                     Step& step) {
        if (!check_address(operation)) [[unlikely]]
            return;
        if (model_ == nullptr) [[likely]] {
            if (is_memory_access(operation.kind))
                take_access(operation);
            else
                take_other(actor, operation, option, step);
            return;
        }
        if ((is_memory_access(operation.kind) || operation.kind == Kind::unlock) &&
            model_->perform(actor, operation, option, step))
            return;
        if (is_memory_access(operation.kind)) {
            take_access(operation);
            return;
        }
        take_other(actor, operation, option, step);
        model_->synchronise(actor, operation, step);
    }

    /// In the setup and the final check, which run alone.
    void take_at_once(Operation& operation);

    /// Whether memory may be accessed there: it lies in the arena and was not freed. Otherwise that
    /// is recorded.
    [[nodiscard]] bool check_address(const Operation& operation) {
        if (arena_.contains(operation.address) && services_->memory.freed == nullptr) [[likely]]
            return true;
        return look_for_freed(operation);
    }

    /// Ends the execution at this step: the program needs more than the explorer holds.
    void exceed(std::string_view what) {
        execution_.record(ViolationKind::memory, what, execution_.running());
    }

    void name(const void* address, std::string_view text, Decoder how) {
        names_[arena_.offset_of(address)] = {std::string(text), how};
    }

    /// "pud", or "+72" without a name.
    [[nodiscard]] std::string name_of(std::uint32_t location) const;
    [[nodiscard]] Decoder decoder(std::uint32_t location) const;

    /// A number that equal final states share, from what the setup made.
    [[nodiscard]] std::uint64_t fingerprint() const;

    /// The same of all memory, at any depth of one execution.
    [[nodiscard]] std::uint64_t hash() const;

    /// `value`; for an address within the arena, a number that is equal in every run.
    [[nodiscard]] std::uint64_t portable(std::uint64_t value) const {
        const std::uint64_t offset = value - reinterpret_cast<std::uint64_t>(arena_.base());
        return offset < Arena::bytes ? offset : value;
    }

    /// Operations that concern at most those who wait for a lock there, or for any change.
    [[nodiscard]] static constexpr bool is_local(Kind kind) { return kind <= Kind::unlock_shared; }

  private:
    struct Named {
        std::string text;
        Decoder decoder = nullptr;
    };

    void take_access(Operation& operation) {
        operation.result = read_word(operation.address, operation.size);
        if (operation.kind == Kind::load)
            return;
        if (const auto value = value_after(operation, operation.result))
            write_word(operation.address, operation.size, *value);
    }

    void take_other(Actor actor, Operation& operation, unsigned option, Step& step);
    void take_lock(Actor actor, Operation& operation);
    void take_service(Actor actor, Operation& operation, unsigned option, Step& step);
    void take_condition(Actor actor, Operation& operation, unsigned option);
    void take_rcu(Actor actor, Operation& operation, Step& step);
    void take_time(Operation& operation);
    void take_free(const Operation& operation);
    void add_extent(Actor actor, const Operation& operation, Touch& touch) const;
    [[nodiscard]] bool look_for_freed(const Operation& operation);

    Execution& execution_;
    Arena arena_;
    std::unique_ptr<MemoryModel> model_; ///< nullptr for sc
    Services* services_ = nullptr;       ///< in the arena
    std::size_t services_end_ = 0;
    bool services_used_ = true;
    std::size_t setup_begin_ = 0; ///< what the setup made begins here in the arena
    std::size_t setup_end_ = 0;
    std::map<std::uint32_t, Named> names_;
};

/// Continues `hash` over `size` bytes. Reads stacks too, and so what a sanitizer keeps there.
[[nodiscard]] std::uint64_t hash_bytes(const std::byte* from, std::size_t size, std::uint64_t hash);

} // namespace moat::explore
