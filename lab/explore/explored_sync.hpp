// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ExploredSync: the Sync policy under which every operation is a step that the explorer schedules.
// State lies in the arena; lab/explore/operations.cpp performs the operations. Scenarios and
// tests instantiate engines with it.
#pragma once

#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include "lab/explore/machine.hpp"

#include <bit>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace moat {

namespace explored {

using explore::Kind;
using explore::Machine;
using explore::Operation;

/// Operations pass words of up to eight bytes as integers.
template <class T>
[[nodiscard]] std::uint64_t to_word(T value) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof value);
    return word;
}

template <class T>
[[nodiscard]] T from_word(std::uint64_t word) {
    T value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}

/// The operations of std::atomic on the word at `address`.
template <class T>
class Access {
  public:
    static T load(const T& word, std::memory_order order) {
        return from_word<T>(perform(Kind::load, const_cast<T&>(word), order));
    }

    static void store(T& word, T value, std::memory_order order) {
        perform(Kind::store, word, order, to_word(value));
    }

    static T modify(Kind kind, T& word, T operand, std::memory_order order) {
        return from_word<T>(perform(kind, word, order, to_word(operand)));
    }

    static bool compare_exchange(T& word, T& expected, T desired, std::memory_order order) {
        const std::uint64_t wanted = to_word(expected);
        const std::uint64_t found =
            perform(Kind::compare_exchange, word, order, to_word(desired), wanted);
        expected = from_word<T>(found);
        return found == wanted;
    }

  private:
    static std::uint64_t perform(Kind kind, T& word, std::memory_order order,
                                 std::uint64_t operand = 0, std::uint64_t expected = 0) {
        Operation operation = {.kind = kind,
                               .size = sizeof(T),
                               .order = order,
                               .address = &word,
                               .operand = operand,
                               .expected = expected};
        Machine::current().perform(operation);
        return operation.result;
    }
};

/// A cell over `Storage`: T, a word of its own, or T&, a word that something else owns.
template <class T, class Storage>
class Cell {
  public:
    Cell() = default;

    constexpr explicit Cell(Storage value) : word_(value) {}

    [[nodiscard]] T load(std::memory_order order) const { return Access<T>::load(word_, order); }

    void store(T value, std::memory_order order) { Access<T>::store(word_, value, order); }

    T exchange(T value, std::memory_order order) {
        return Access<T>::modify(Kind::exchange, word_, value, order);
    }

    bool compare_exchange_strong(T& expected, T desired, std::memory_order success,
                                 std::memory_order) {
        return Access<T>::compare_exchange(word_, expected, desired, success);
    }

    bool compare_exchange_weak(T& expected, T desired, std::memory_order success,
                               std::memory_order) {
        return Access<T>::compare_exchange(word_, expected, desired, success);
    }

    T fetch_add(T operand, std::memory_order order) {
        return Access<T>::modify(Kind::fetch_add, word_, operand, order);
    }

    T fetch_sub(T operand, std::memory_order order) {
        return Access<T>::modify(Kind::fetch_sub, word_, operand, order);
    }

    T fetch_or(T operand, std::memory_order order) {
        return Access<T>::modify(Kind::fetch_or, word_, operand, order);
    }

    T fetch_and(T operand, std::memory_order order) {
        return Access<T>::modify(Kind::fetch_and, word_, operand, order);
    }

  private:
    Storage word_{};
};

template <class T>
class Ref : public Cell<T, T&> {
  public:
    explicit Ref(T& value) : Cell<T, T&>(value) {}
};

/// Not atomic: two unordered accesses are a violation if one of them writes.
template <class T>
class Plain {
  public:
    Plain() = default;

    constexpr explicit Plain(T value) : value_(value) {}

    [[nodiscard]] T read() const {
        Machine::current().note_plain(this, false);
        return value_;
    }

    void write(T value) {
        Machine::current().note_plain(this, true);
        value_ = value;
    }

  private:
    T value_{};
};

inline std::uint64_t announce(Kind kind, void* address, std::uint64_t operand = 0,
                              std::uint64_t expected = 0) {
    Operation operation = {
        .kind = kind, .address = address, .operand = operand, .expected = expected};
    Machine::current().perform(operation);
    return operation.result;
}

class MOAT_CAPABILITY("mutex") Mutex {
  public:
    void lock() MOAT_ACQUIRE() { announce(Kind::lock, &state_); }

    bool try_lock() MOAT_TRY_ACQUIRE(true) { return announce(Kind::try_lock, &state_) != 0; }

    void unlock() MOAT_RELEASE() { announce(Kind::unlock, &state_); }

    void lock_shared() MOAT_ACQUIRE_SHARED() { announce(Kind::lock_shared, &state_); }

    void unlock_shared() MOAT_RELEASE_SHARED() { announce(Kind::unlock_shared, &state_); }

  private:
    explore::LockState state_;
};

class Condition {
  public:
    /// Joins the waiters before it unlocks, which equals doing both at once: a notify in between
    /// finds the waiter.
    void wait(Mutex& mutex) MOAT_NO_THREAD_SAFETY_ANALYSIS {
        announce(Kind::wait_begin, &state_);
        mutex.unlock();
        announce(Kind::wait_end, &state_);
        mutex.lock();
    }

    /// The strategy decides whether the time runs out first.
    bool wait_for(Mutex& mutex, std::uint64_t nanoseconds) MOAT_NO_THREAD_SAFETY_ANALYSIS {
        announce(Kind::wait_begin, &state_);
        mutex.unlock();
        const bool notified = announce(Kind::wait_end, &state_, 1) != 0;
        if (!notified)
            announce(Kind::advance, &Machine::current().services().time, nanoseconds);
        mutex.lock();
        return notified;
    }

    void notify_one() { announce(Kind::notify_one, &state_); }

    void notify_all() { announce(Kind::notify_all, &state_); }

  private:
    explore::ConditionState state_;
};

class ReadSection {
  public:
    ReadSection() {
        Machine& machine = Machine::current();
        if (machine.running() != explore::nobody &&
            machine.services().rcu.depth[machine.running()]++ == 0)
            announce(Kind::read_begin, &machine.services().rcu);
    }

    ~ReadSection() {
        Machine& machine = Machine::current();
        if (machine.running() != explore::nobody &&
            --machine.services().rcu.depth[machine.running()] == 0)
            announce(Kind::read_end, &machine.services().rcu);
    }

    ReadSection(const ReadSection&) = delete;
    ReadSection& operator=(const ReadSection&) = delete;
};

class Timer {
  public:
    Timer(void (*callback)(void*), void* context)
        : state_{.callback = callback,
                 .context = context,
                 .next = Machine::current().services().time.timers} {
        time().timers = &state_;
    }

    ~Timer() {
        cancel();
        explore::TimerState** link = &time().timers;
        while (*link != &state_)
            link = &(*link)->next;
        *link = state_.next;
    }

    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    void arm(std::uint64_t nanoseconds) {
        announce(Kind::arm, &time(), to_word(&state_), nanoseconds);
    }

    void cancel() { announce(Kind::cancel, &time(), to_word(&state_)); }

  private:
    [[nodiscard]] static explore::Services::Time& time() {
        return Machine::current().services().time;
    }

    explore::TimerState state_;
};

/// A list of the slots of all objects, for the end of a thread.
struct SlotBase {
    SlotBase* next = nullptr;
    void (*thread_ends)(SlotBase*, explore::Actor) = nullptr;
};

[[nodiscard]] inline Mutex& registry_mutex() {
    static_assert(sizeof(Mutex) == sizeof(explore::LockState));
    return reinterpret_cast<Mutex&>(Machine::current().services().thread_locals_lock);
}

/// The same protocol as in production: `local()` takes the registry's lock at first use only.
template <class T>
class ThreadLocal : SlotBase {
  public:
    using ExitHook = void (*)(void* context, T& value);

    ThreadLocal(ExitHook hook, void* context)
        : SlotBase{static_cast<SlotBase*>(Machine::current().services().thread_locals),
                   &ThreadLocal::end},
          hook_(hook), context_(context) {
        explore::Services& services = Machine::current().services();
        services.thread_locals = static_cast<SlotBase*>(this);
        services.thread_exit = &end_thread;
    }

    ~ThreadLocal() {
        void** link = &Machine::current().services().thread_locals;
        while (*link != static_cast<SlotBase*>(this))
            link = reinterpret_cast<void**>(&static_cast<SlotBase*>(*link)->next);
        *link = this->next;
    }

    ThreadLocal(const ThreadLocal&) = delete;
    ThreadLocal& operator=(const ThreadLocal&) = delete;

    [[nodiscard]] T* local();

    void for_each(void (*visit)(void*, T&), void* context) {
        const ExclusiveLock lock(registry_mutex());
        for (T* value : values_)
            if (value != nullptr)
                visit(context, *value);
    }

  private:
    static void end_thread(explore::Actor actor) {
        const ExclusiveLock lock(registry_mutex());
        auto* slot = static_cast<SlotBase*>(Machine::current().services().thread_locals);
        for (; slot != nullptr; slot = slot->next)
            slot->thread_ends(slot, actor);
    }

    static void end(SlotBase* base, explore::Actor actor);

    ExitHook hook_;
    void* context_;
    /// One more for the setup and the final check, which run as no thread.
    std::array<T*, explore::most_fibers + 1> values_{};
};

/// A node, with the head in front so that retiring needs no memory.
template <class T>
struct Node {
    RcuHead head;
    T value;
};

} // namespace explored

/// See the file's head.
struct ExploredSync {
    template <class T>
    using Atomic = explored::Cell<T, T>;
    template <class T>
    using AtomicRef = explored::Ref<T>;
    template <class T>
    using Plain = explored::Plain<T>;
    using Mutex = explored::Mutex;
    using SharedMutex = explored::Mutex;
    using Condition = explored::Condition;
    using ReadSection = explored::ReadSection;
    using Timer = explored::Timer;
    template <class T>
    using ThreadLocal = explored::ThreadLocal<T>;

    static void synchronize() {
        explored::announce(explore::Kind::grace_begin, &services().rcu);
        explored::announce(explore::Kind::grace_end, &services().rcu);
    }

    static void defer(RcuHead* head, void (*call)(RcuHead*)) {
        head->next = nullptr;
        head->call = call;
        explored::announce(explore::Kind::defer, &services().deferred, explored::to_word(head));
    }

    static void barrier() { explored::announce(explore::Kind::barrier, &services().deferred); }

    static std::uint64_t now() {
        return explored::announce(explore::Kind::read_time, &services().time);
    }

    /// nullptr when the arena is used up, or when the explorer makes the allocation fail.
    template <class T, class... Args>
    [[nodiscard]] static T* make(Args&&... args) {
        using Node = explored::Node<T>;
        explore::Machine& machine = explore::Machine::current();
        if (machine.options().failing_allocations != 0 && machine.running() != explore::nobody &&
            explored::announce(explore::Kind::allocate, &services().memory) == 0)
            return nullptr;
        void* const memory = machine.allocate(sizeof(Node), alignof(Node));
        if (memory == nullptr)
            return nullptr;
        return &(new (memory) Node{{}, T(std::forward<Args>(args)...)})->value;
    }

    template <class T>
    static void destroy(T* value) {
        value->~T();
        explored::Node<T>* const node = node_of(value);
        explored::announce(explore::Kind::free, node, sizeof *node);
    }

    template <class T>
    static void retire(T* value) {
        defer(&node_of(value)->head,
              [](RcuHead* head) { destroy(&reinterpret_cast<explored::Node<T>*>(head)->value); });
    }

    static void pause() { explored::announce(explore::Kind::pause, nullptr); }

    static void yield() { pause(); }

    /// Explores each of 0 .. alternatives - 1, to model a device, an input or a coin.
    [[nodiscard]] static unsigned choose(unsigned alternatives) {
        return static_cast<unsigned>(
            explored::announce(explore::Kind::choose, nullptr, alternatives));
    }

    /// A condition of the scenario; if it is false, the execution ends as a violation.
    static void check(bool condition, std::string_view text) {
        if (!condition)
            explore::Machine::current().fail(explore::ViolationKind::check, text);
    }

  private:
    [[nodiscard]] static explore::Services& services() {
        return explore::Machine::current().services();
    }

    template <class T>
    static explored::Node<T>* node_of(T* value) {
        constexpr std::size_t offset = (sizeof(RcuHead) + alignof(T) - 1) / alignof(T) * alignof(T);
        auto* const bytes = reinterpret_cast<std::byte*>(value);
        return reinterpret_cast<explored::Node<T>*>(bytes - offset);
    }
};

namespace explored {

template <class T>
T* ThreadLocal<T>::local() {
    const explore::Actor self = Machine::current().running();
    T*& value = values_[self == explore::nobody ? explore::most_fibers : self];
    if (value == nullptr) {
        const ExclusiveLock lock(registry_mutex());
        value = ExploredSync::make<T>();
    }
    return value;
}

template <class T>
void ThreadLocal<T>::end(SlotBase* base, explore::Actor actor) {
    auto* const self = static_cast<ThreadLocal*>(base);
    if (T* const value = std::exchange(self->values_[actor], nullptr)) {
        self->hook_(self->context_, *value);
        ExploredSync::destroy(value);
    }
}

} // namespace explored

static_assert(SyncPolicy<ExploredSync>);

} // namespace moat
