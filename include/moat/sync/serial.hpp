// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SerialSync: the Sync policy for one thread. Nothing is atomic; locks check that they are not
// taken twice; time stands still until it is advanced. Embedders without threads use it, and tests.
#pragma once

#include "moat/core/check.hpp"
#include "moat/sync/annotations.hpp"
#include "moat/sync/concept.hpp"

#include <cstdint>
#include <new>
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

/// What would be per thread or global elsewhere.
struct World {
    unsigned open_sections = 0;
    RcuHead* deferred = nullptr;
    std::uint64_t now = 0;
    Timer* timers = nullptr;
};

inline constinit World world{};

/// Runs the deferred calls; those that they defer in turn as well.
inline void run_deferred() {
    while (RcuHead* head = world.deferred) {
        world.deferred = head->next;
        head->call(head);
    }
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

class Condition {
  public:
    void wait(Mutex&) { MOAT_CHECK(false, "one thread waits for another that cannot exist"); }

    /// The whole time passes, since nobody else can notify.
    bool wait_for(Mutex&, std::uint64_t nanoseconds);

    void notify_one() {}

    void notify_all() {}
};

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
        deadline_ = world.now + nanoseconds;
        armed_ = true;
    }

    void cancel() { armed_ = false; }

  private:
    friend void advance(std::uint64_t nanoseconds);

    void (*callback_)(void*);
    void* context_;
    Timer* next_;
    std::uint64_t deadline_ = 0;
    bool armed_ = false;
};

/// Lets time pass: the timers that fall due run, earliest first, each at its own moment.
inline void advance(std::uint64_t nanoseconds) {
    const std::uint64_t end = world.now + nanoseconds;
    for (;;) {
        Timer* due = nullptr;
        for (Timer* each = world.timers; each != nullptr; each = each->next_)
            if (each->armed_ && each->deadline_ <= end &&
                (due == nullptr || each->deadline_ < due->deadline_))
                due = each;
        if (due == nullptr)
            break;
        due->armed_ = false;
        world.now = due->deadline_;
        due->callback_(due->context_);
    }
    world.now = end;
}

inline bool Condition::wait_for(Mutex&, std::uint64_t nanoseconds) {
    advance(nanoseconds);
    return false;
}

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

    /// What the end of the one thread would do, for tests.
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

/// See the file's head. One world a process: not for use by two threads, even with separate
/// objects.
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
        head->next = std::exchange(serial::world.deferred, head);
        if (serial::world.open_sections == 0)
            serial::run_deferred();
    }

    static void barrier() { synchronize(); }

    static std::uint64_t now() { return serial::world.now; }

    /// Lets `nanoseconds` pass; timers that fall due run inside the call.
    static void advance(std::uint64_t nanoseconds) { serial::advance(nanoseconds); }

    template <class T, class... Args>
    [[nodiscard]] static T* make(Args&&... args) {
        return new (std::nothrow) T(std::forward<Args>(args)...);
    }

    template <class T>
    static void destroy(T* node) {
        delete node;
    }

    /// No reader can be inside but this thread itself; a node retired in a read section leaks its
    /// use to nobody else, so it is an error to do so.
    template <class T>
    static void retire(T* node) {
        MOAT_CHECK(serial::world.open_sections == 0, "retire inside a read section");
        delete node;
    }

    static void pause() {}

    static void yield() {}
};

static_assert(SyncPolicy<SerialSync>);

} // namespace moat
