// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SerialSync: the Sync policy for one thread, for tests and embedders without threads. Nothing is
// atomic; a lock checks that it is not taken twice; time passes only in waits and `advance`.
#pragma once

#include "moat/core/check.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/detail/node.hpp"
#include "moat/sync/lock.hpp"

#include <atomic>
#include <cstdint>
#include <limits>
#include <utility>

namespace moat {

namespace serial {

/// The operations of std::atomic on a plain variable.
template <class T, class Storage>
class Cell {
  public:
    Cell() = default;

    constexpr explicit Cell(Storage value) : value_(value) {}

    [[nodiscard]] T load(std::memory_order) const { return value_; }

    void store(T value, std::memory_order) { value_ = value; }

    T exchange(T value, std::memory_order) { return std::exchange(value_, value); }

    bool compare_exchange_strong(T& expected, T desired, std::memory_order, std::memory_order) {
        if (value_ != expected) {
            expected = value_;
            return false;
        }
        value_ = desired;
        return true;
    }

    bool compare_exchange_weak(T& expected, T desired, std::memory_order success,
                               std::memory_order failure) {
        return compare_exchange_strong(expected, desired, success, failure);
    }

    T fetch_add(T operand, std::memory_order) {
        return std::exchange(value_, static_cast<T>(value_ + operand));
    }

    T fetch_sub(T operand, std::memory_order) {
        return std::exchange(value_, static_cast<T>(value_ - operand));
    }

    T fetch_or(T operand, std::memory_order) {
        return std::exchange(value_, static_cast<T>(value_ | operand));
    }

    T fetch_and(T operand, std::memory_order) {
        return std::exchange(value_, static_cast<T>(value_ & operand));
    }

  private:
    Storage value_{};
};

template <class T>
class Ref : public Cell<T, T&> {
  public:
    explicit Ref(T& value) : Cell<T, T&>(value) {}
};

template <class T>
class Plain {
  public:
    Plain() = default;

    constexpr explicit Plain(T value) : value_(value) {}

    [[nodiscard]] T read() const { return value_; }

    void write(T value) { value_ = value; }

  private:
    T value_{};
};

class MOAT_CAPABILITY("mutex") Mutex {
  public:
    void lock() MOAT_ACQUIRE() {
        MOAT_CHECK(readers_ == 0 && !held_, "one thread waits for a lock that it holds");
        held_ = true;
    }

    bool try_lock() MOAT_TRY_ACQUIRE(true) { return readers_ == 0 && !std::exchange(held_, true); }

    void unlock() MOAT_RELEASE() {
        MOAT_CHECK(std::exchange(held_, false), "an unlock follows a lock");
    }

    void lock_shared() MOAT_ACQUIRE_SHARED() {
        MOAT_CHECK(!held_, "one thread waits for a lock that it holds");
        ++readers_;
    }

    void unlock_shared() MOAT_RELEASE_SHARED() {
        MOAT_CHECK(readers_ > 0, "an unlock follows a lock");
        --readers_;
    }

  private:
    bool held_ = false;
    unsigned readers_ = 0;
};

class Timer;

/// The state that other policies keep per thread or globally.
struct World {
    unsigned open_sections = 0;
    bool running_deferred = false;
    RcuHead* deferred_first = nullptr;
    RcuHead** deferred_last = &deferred_first;
    std::uint64_t now = 0;
    Timer* timers = nullptr;
};

inline constinit World world{};

/// Runs the deferred calls in order, and those that they defer; does nothing inside one of them.
inline void run_deferred() {
    if (std::exchange(world.running_deferred, true))
        return;
    while (RcuHead* head = world.deferred_first) {
        world.deferred_first = head->next;
        if (head->next == nullptr)
            world.deferred_last = &world.deferred_first;
        head->call(head);
    }
    world.running_deferred = false;
}

class ReadSection {
  public:
    ReadSection() { ++world.open_sections; }

    ~ReadSection() {
        if (--world.open_sections == 0)
            run_deferred();
    }

    ReadSection(const ReadSection&) = delete;
    ReadSection& operator=(const ReadSection&) = delete;
};

/// The time `nanoseconds` from now, at most the largest value.
[[nodiscard]] inline std::uint64_t after(std::uint64_t nanoseconds) {
    constexpr std::uint64_t end_of_time = std::numeric_limits<std::uint64_t>::max();
    return nanoseconds < end_of_time - world.now ? world.now + nanoseconds : end_of_time;
}

class Timer {
  public:
    Timer(void (*callback)(void*), void* context)
        : callback_(callback), context_(context), next_(std::exchange(world.timers, this)) {}

    ~Timer() {
        Timer** link = &world.timers;
        while (*link != this)
            link = &(*link)->next_;
        *link = next_;
    }

    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    void arm(std::uint64_t nanoseconds) {
        deadline_ = after(nanoseconds);
        armed_ = true;
    }

    void cancel() { armed_ = false; }

  private:
    friend bool run_next_timer(std::uint64_t end);

    void (*callback_)(void*);
    void* context_;
    Timer* next_;
    std::uint64_t deadline_ = 0;
    bool armed_ = false;
};

/// Advances to the earliest timer due by `end` and runs it. Return: false without one; the time
/// stays then.
inline bool run_next_timer(std::uint64_t end) {
    Timer* due = nullptr;
    for (Timer* each = world.timers; each != nullptr; each = each->next_)
        if (each->armed_ && each->deadline_ <= end &&
            (due == nullptr || each->deadline_ < due->deadline_))
            due = each;
    if (due == nullptr)
        return false;
    due->armed_ = false;
    world.now = due->deadline_;
    due->callback_(due->context_);
    return true;
}

/// Advances the time and runs due timers, earliest first, each at its own time.
inline void advance(std::uint64_t nanoseconds) {
    const std::uint64_t end = after(nanoseconds);
    while (run_next_timer(end)) {
    }
    world.now = end;
}

/// Waiting advances the time, since only a timer's callback can notify.
class Condition {
  public:
    void wait(Mutex& mutex) MOAT_REQUIRES(mutex) {
        const bool notified = wait_until(mutex, std::numeric_limits<std::uint64_t>::max());
        MOAT_CHECK(notified, "one thread waits for another that cannot exist");
    }

    bool wait_for(Mutex& mutex, std::uint64_t nanoseconds) MOAT_REQUIRES(mutex) {
        return wait_until(mutex, after(nanoseconds));
    }

    void notify_one() { ++notifications_; }

    void notify_all() { ++notifications_; }

  private:
    bool wait_until(Mutex& mutex, std::uint64_t end) MOAT_REQUIRES(mutex) {
        const std::uint64_t before = notifications_;
        mutex.unlock();
        bool time_is_left = true;
        while (notifications_ == before && time_is_left)
            time_is_left = run_next_timer(end);
        if (!time_is_left)
            world.now = end;
        mutex.lock();
        return notifications_ != before;
    }

    std::uint64_t notifications_ = 0;
};

template <class T>
class ThreadLocal {
  public:
    using ExitHook = void (*)(void* context, T& value);

    ThreadLocal(ExitHook hook, void* context) : hook_(hook), context_(context) {}

    T* local() {
        used_ = true;
        return &value_;
    }

    void for_each(void (*visit)(void*, T&), void* context) {
        if (used_)
            visit(context, value_);
    }

    /// Ends the one thread, for tests.
    void exit_thread() {
        if (std::exchange(used_, false))
            hook_(context_, value_);
        value_ = T();
    }

  private:
    ExitHook hook_;
    void* context_;
    T value_{};
    bool used_ = false;
};

} // namespace serial

/// One per process: two threads must not use it, even with separate objects.
struct SerialSync {
    template <class T>
    using Atomic = serial::Cell<T, T>;
    template <class T>
    using AtomicRef = serial::Ref<T>;
    template <class T>
    using Plain = serial::Plain<T>;
    using Mutex = serial::Mutex;
    using SharedMutex = serial::Mutex;
    using Condition = serial::Condition;
    using ReadSection = serial::ReadSection;
    using Timer = serial::Timer;
    template <class T>
    using ThreadLocal = serial::ThreadLocal<T>;

    static void synchronize() {
        MOAT_CHECK(serial::world.open_sections == 0, "synchronize inside a read section");
        serial::run_deferred();
    }

    static void defer(RcuHead* head, void (*call)(RcuHead*)) {
        head->call = call;
        head->next = nullptr;
        *std::exchange(serial::world.deferred_last, &head->next) = head;
        if (serial::world.open_sections == 0)
            serial::run_deferred();
    }

    static void barrier() { synchronize(); }

    static std::uint64_t now() { return serial::world.now; }

    /// Advances the time; due timers run inside the call.
    static void advance(std::uint64_t nanoseconds) { serial::advance(nanoseconds); }

    template <class T, class... Args>
    [[nodiscard]] static T* make(Args&&... args) {
        return RetirableNode<T>::make(std::forward<Args>(args)...);
    }

    template <class T>
    static void destroy(T* value) {
        RetirableNode<T>::destroy(value);
    }

    template <class T>
    static void retire(T* value) {
        defer(RetirableNode<T>::head(value), RetirableNode<T>::destroy_head);
    }

    static void pause() {}

    static void yield() {}
};

static_assert(SyncPolicy<SerialSync>);

} // namespace moat
