// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The Sync concept: everything that an engine may do which another thread can notice.
// No implementation: that is sync/serial.hpp (one thread), sync/real.hpp (production) and the
// explorer's. An engine takes a model of it as a parameter and does nothing concurrent elsewhere.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace moat {

/// A deferred call, embedded in the object that it will free. It belongs to the policy from
/// `Sync::defer` until `call` runs.
struct RcuHead {
    RcuHead* next = nullptr;
    void (*call)(RcuHead*) = nullptr;
};

/// What std::atomic and std::atomic_ref offer; orders are explicit everywhere.
template <class A, class T>
concept AtomicCell = requires(A cell, T value, std::memory_order order) {
    { cell.load(order) } -> std::same_as<T>;
    { cell.store(value, order) };
    { cell.exchange(value, order) } -> std::same_as<T>;
    { cell.compare_exchange_strong(value, value, order, order) } -> std::same_as<bool>;
    { cell.compare_exchange_weak(value, value, order, order) } -> std::same_as<bool>;
};

/// An integer's cell adds arithmetic.
template <class A, class T>
concept AtomicInteger = AtomicCell<A, T> && requires(A cell, T value, std::memory_order order) {
    { cell.fetch_add(value, order) } -> std::same_as<T>;
    { cell.fetch_sub(value, order) } -> std::same_as<T>;
    { cell.fetch_or(value, order) } -> std::same_as<T>;
    { cell.fetch_and(value, order) } -> std::same_as<T>;
};

template <class M>
concept Lockable = requires(M mutex) {
    mutex.lock();
    mutex.unlock();
    { mutex.try_lock() } -> std::same_as<bool>;
};

template <class M>
concept SharedLockable = Lockable<M> && requires(M mutex) {
    mutex.lock_shared();
    mutex.unlock_shared();
};

template <class C, class Mutex>
concept ConditionVariable = requires(C condition, Mutex& mutex, std::uint64_t nanoseconds) {
    // Unlocks, sleeps, locks again; may wake without cause.
    condition.wait(mutex);
    // The same for a bounded time. Return: false when the time ran out.
    { condition.wait_for(mutex, nanoseconds) } -> std::same_as<bool>;
    condition.notify_one();
    condition.notify_all();
};

template <class T>
concept OneShotTimer = requires(T timer, std::uint64_t nanoseconds) {
    // Runs the callback once, on a thread of the policy, not earlier than `nanoseconds` from now;
    // arming an armed timer moves it. The callback may arm it again, cancel it or destroy it.
    timer.arm(nanoseconds);
    // On return the callback neither runs nor will, unless called from inside the callback; so no
    // lock is held that the callback takes.
    timer.cancel();
};

template <class L, class T>
concept ThreadLocalSlot = requires(L slot, void (*visit)(void*, T&), void* context) {
    // The calling thread's own T, made by T() at its first use; nullptr when memory for it failed.
    { slot.local() } -> std::same_as<T*>;
    // Visits every thread's T while no thread can begin or end to have one. The owners go on
    // running: what is visited must be safe to touch beside its owner. Neither the visitor nor the
    // exit hook calls `local` or `for_each` of any slot.
    slot.for_each(visit, context);
};

namespace detail {

struct Probe {
    int value = 0;
};

} // namespace detail

/// A policy of synchronisation; all static, so that an engine carries no pointer to it.
template <class S>
concept SyncPolicy = requires(RcuHead* head, void (*call)(RcuHead*), detail::Probe* node) {
    // A shared word that this object owns.
    requires AtomicInteger<typename S::template Atomic<std::uint64_t>, std::uint64_t>;
    requires AtomicCell<typename S::template Atomic<void*>, void*>;
    // A shared word in memory that something else owns: a guest's RAM, a table.
    requires AtomicInteger<typename S::template AtomicRef<std::uint64_t>, std::uint64_t>;
    // A shared variable that a protocol, not atomicity, protects: the explorer finds its races.
    requires requires(typename S::template Plain<int> plain) {
        { plain.read() } -> std::same_as<int>;
        plain.write(1);
    };
    // Not recursive; unlocked by the thread that locked.
    requires Lockable<typename S::Mutex>;
    requires SharedLockable<typename S::SharedMutex>;
    requires ConditionVariable<typename S::Condition, typename S::Mutex>;
    // RCU: while a ReadSection lives, nothing that was reachable when it began is freed. Nests.
    requires std::default_initializable<typename S::ReadSection>;
    // Returns when every ReadSection that was open at the call has ended. Not from inside one.
    S::synchronize();
    // Runs call(head) after a grace period, on any thread, at once where no section is open and the
    // policy likes: so `call` takes no lock that a caller of `defer` may hold.
    S::defer(head, call);
    // Returns when every call deferred before it has run. Not from inside a ReadSection, nor from a
    // deferred call.
    S::barrier();
    // Per object and thread; the hook passed at construction sees the T of a thread that ends.
    requires ThreadLocalSlot<typename S::template ThreadLocal<detail::Probe>, detail::Probe>;
    // Monotonic nanoseconds.
    { S::now() } -> std::same_as<std::uint64_t>;
    requires OneShotTimer<typename S::Timer>;
    // Nodes: nullptr when memory failed; `retire` destroys after a grace period.
    { S::template make<detail::Probe>() } -> std::same_as<detail::Probe*>;
    S::destroy(node);
    S::retire(node);
    // Lets others run: `pause` in a loop that waits for a few instructions, `yield` for longer.
    S::pause();
    S::yield();
};

} // namespace moat
