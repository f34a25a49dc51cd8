// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the models of IOMMUs in this folder share: registers, entries of queues, threads that submit
// commands, and a unit that executes each or breaks at one. unit_queues.cpp lists the scenarios.
#pragma once

#include "moat/sync/lock.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/arena_tables.hpp"
#include "lab/scenarios/scenario.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace moat::scenarios::units {

/// Registers that are not ordered with memory, which iommu::UnitRegisters demands.
struct UnorderedRegisters : ExploredSync {};

/// Calls of the driver that do not exclude each other.
struct Unlocked : ExploredSync {
    struct MOAT_CAPABILITY("mutex") Mutex : explored::Mutex {
        void lock() MOAT_ACQUIRE() {}

        bool try_lock() MOAT_TRY_ACQUIRE(true) { return true; }

        void unlock() MOAT_RELEASE() {}
    };
};

/// The driver stores to its queue's entries as to plain memory. The driver and the unit own them in
/// turn: the explorer reports an access that the queue's indices do not order.
template <class Sync>
struct StoresPlain : Sync {
    template <class T>
    struct AtomicRef : Sync::template AtomicRef<T> {
        explicit AtomicRef(T& word) : Sync::template AtomicRef<T>(word), word_(word) {}

        void store(T value, std::memory_order) {
            explore::Machine::current().note_plain(&word_, true);
            word_ = value;
        }

      private:
        T& word_;
    };
};

/// The same for a queue that the unit fills.
template <class Sync>
struct LoadsPlain : Sync {
    template <class T>
    struct AtomicRef : Sync::template AtomicRef<T> {
        explicit AtomicRef(T& word) : Sync::template AtomicRef<T>(word), word_(word) {}

        [[nodiscard]] T load(std::memory_order) const {
            explore::Machine::current().note_plain(&word_, false);
            return word_;
        }

      private:
        T& word_;
    };
};

/// The unit's side of such an entry.
using UnitLoads = LoadsPlain<ExploredSync>::AtomicRef<std::uint64_t>;
using UnitStores = StoresPlain<ExploredSync>::AtomicRef<std::uint64_t>;

/// The registers that a queue uses, by offset.
template <class Sync, unsigned... Offsets>
class Registers {
  public:
    using Register = ExploredSync::Atomic<std::uint64_t>;

    static constexpr bool ordered = !std::is_same_v<Sync, UnorderedRegisters>;
    static constexpr auto acquire = ordered ? std::memory_order_acquire : std::memory_order_relaxed;
    static constexpr auto release = ordered ? std::memory_order_release : std::memory_order_relaxed;

    [[nodiscard]] Register& at(unsigned offset) {
        constexpr std::array<unsigned, sizeof...(Offsets)> offsets = {Offsets...};
        const auto* const found = std::ranges::find(offsets, offset);
        MOAT_CHECK(found != offsets.end(), "the model lists each register that the driver uses");
        return registers_[static_cast<std::size_t>(found - offsets.begin())];
    }

    std::uint64_t read64(unsigned offset) { return at(offset).load(acquire); }

    std::uint32_t read32(unsigned offset) { return static_cast<std::uint32_t>(read64(offset)); }

    void write64(unsigned offset, std::uint64_t value) { at(offset).store(value, release); }

    void write32(unsigned offset, std::uint32_t value) { write64(offset, value); }

    /// Waits until the unit has changed something; gives up when it is gone.
    bool relax(unsigned) {
        ExploredSync::pause();
        return !is_gone();
    }

    [[nodiscard]] bool is_gone() const { return gone_.load(std::memory_order_acquire); }

    void leave() { gone_.store(true, std::memory_order_release); }

  private:
    std::array<Register, sizeof...(Offsets)> registers_{};
    ExploredSync::Atomic<bool> gone_{false};
};

/// A notification or an interrupt: it is kept until the other side waits for it.
class Signal {
  public:
    void raise() {
        const ExclusiveLock lock(mutex_);
        is_raised_ = true;
        condition_.notify_one();
    }

    void wait() {
        const ExclusiveLock lock(mutex_);
        while (!is_raised_)
            condition_.wait(mutex_);
        is_raised_ = false;
    }

  private:
    ExploredSync::Mutex mutex_;
    ExploredSync::Condition condition_;
    bool is_raised_ MOAT_GUARDED_BY(mutex_) = false;
};

/// How a unit ends before it has executed everything, at any command.
enum class Failure : std::uint8_t { none, reported, silent };

inline constexpr std::array failure_names = {"none", "reported", "silent"};

/// Two threads that each call the driver `runs` times with `batch` commands.
struct Bounds {
    static constexpr unsigned submitters = 2;
    static constexpr unsigned most = 3; ///< runs, and commands of a batch

    unsigned runs = 0;
    unsigned batch = 0;
    Failure failure = Failure::none;

    explicit Bounds(const Configuration& text)
        : runs(number(text, "runs")), batch(number(text, "batch")),
          failure(static_cast<Failure>(std::ranges::find(failure_names, text.at("failure")) -
                                       failure_names.begin())) {}

    [[nodiscard]] unsigned commands() const { return submitters * runs * batch; }
};

/// A unit that executes numbered commands. It may do so late: after it has consumed them, and
/// before it completes the command that the driver waits for.
template <class Sync, class UnitRegisters>
class Unit {
  public:
    explicit Unit(const Bounds& bounds) : bounds_(bounds), left_(bounds.commands()) {}

    /// Names what the timeline and reports of violations show.
    void name(explore::Setup& setup) {
        for (unsigned i = 0; i != bounds_.commands(); ++i)
            setup.name(&executed_[i], "command " + std::to_string(i));
    }

    /// What thread `submitter` does. `send(first, count)` calls the driver.
    template <class Send>
    void submit(unsigned submitter, const Send& send) {
        for (unsigned run = 0; run != bounds_.runs; ++run) {
            const unsigned first = (submitter * bounds_.runs + run) * bounds_.batch;
            if (!call(send, first)) {
                ExploredSync::check(failed_.load(std::memory_order_relaxed),
                                    "a call fails although the unit works");
                continue;
            }
            for (unsigned i = first; i != first + bounds_.batch; ++i)
                ExploredSync::check(executed_[i].read() == 1,
                                    "a call returns before the unit executed its commands");
        }
    }

  protected:
    [[nodiscard]] bool has_work() const { return left_ != 0; }

    /// Whether the unit ends here, after report() or in silence.
    template <class Report>
    [[nodiscard]] bool fails(const Report& report) {
        if (bounds_.failure == Failure::none || ExploredSync::choose(2) == 0)
            return false;
        failed_.store(true, std::memory_order_relaxed);
        if (bounds_.failure == Failure::reported)
            report();
        else
            registers_.leave();
        return true;
    }

    void consume(std::uint64_t command) {
        ExploredSync::check(command < bounds_.commands() && consumed_count_ < consumed_.size(),
                            "the unit reads a command that no thread sent");
        consumed_[consumed_count_++] = static_cast<unsigned>(command);
    }

    void execute_consumed() {
        for (; consumed_count_ != 0; --left_) {
            auto& executed = executed_[consumed_[--consumed_count_]];
            ExploredSync::check(executed.read() == 0, "the unit executes a command twice");
            executed.write(1);
        }
    }

    UnitRegisters registers_;
    ArenaTables memory_;

  private:
    template <class Send>
    Result<void> call(const Send& send, unsigned first) {
        const ExclusiveLock lock(mutex_);
        return send(first, bounds_.batch);
    }

    static constexpr std::size_t most_commands =
        std::size_t{Bounds::submitters} * Bounds::most * Bounds::most;

    typename Sync::Mutex mutex_; ///< as the unit's driver holds it during each call
    const Bounds bounds_;
    /// By command: what a thread frees or reuses once the call has returned.
    std::array<ExploredSync::Plain<unsigned>, most_commands> executed_{};
    std::array<unsigned, most_commands> consumed_{};
    unsigned consumed_count_ = 0;
    unsigned left_;
    ExploredSync::Atomic<bool> failed_{false};
};

/// Threads that submit commands, and the unit. `Queue` is a Unit with `send` and `run_unit`.
template <class Queue>
[[nodiscard]] explore::Program submitting_program(const Configuration& text) {
    return [bounds = Bounds(text)](explore::Setup& setup) {
        auto& queue = setup.make<Queue>(bounds);
        queue.name(setup);
        for (unsigned i = 0; i != Bounds::submitters; ++i)
            setup.thread("submitter", [&queue, i] {
                queue.submit(i, [&queue](unsigned first, unsigned count) {
                    return queue.send(first, count);
                });
            });
        setup.thread("unit", [&queue] { queue.run_unit(); });
    };
}

} // namespace moat::scenarios::units
