// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The Sync concept: every operation of an engine that another thread can observe. Its models are
// sync/serial.hpp (one thread), sync/real.hpp (production) and the explorer's. An engine takes one
// as a parameter and does nothing concurrent outside of it.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace moat {

/// A deferred call, embedded in the object that it frees. The policy owns it from `Sync::defer`
/// until `call` runs.
struct RcuHead {
    RcuHead* next = nullptr;
    void (*call)(RcuHead*) = nullptr;
};

/// The operations of std::atomic and std::atomic_ref; memory orders are explicit.
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
    // The same for a bounded time. Return: false after a timeout.
    { condition.wait_for(mutex, nanoseconds) } -> std::same_as<bool>;
    condition.notify_one();
    condition.notify_all();
};

template <class T>
concept OneShotTimer = requires(T timer, std::uint64_t nanoseconds) {
    // Runs the callback once, on a thread of the policy, `nanoseconds` from now or later. Arming an
    // armed timer moves it. The callback may arm, cancel or destroy the timer.
    timer.arm(nanoseconds);
    // On return the callback does not run and will not, except when called from inside it. The
    // caller holds no lock that the callback takes.
    timer.cancel();
};

template <class L, class T>
concept ThreadLocalSlot = requires(L slot, void (*visit)(void*, T&), void* context) {
    // The calling thread's T, made by T() at first use; nullptr without memory.
    { slot.local() } -> std::same_as<T*>;
    // Visits every thread's T while no thread can get or lose one. The owners keep running, so the
    // visitor touches only what is safe beside them. Neither the visitor nor the exit hook calls
    // `local` or `for_each` of any slot.
    slot.for_each(visit, context);
};

namespace detail {

struct Probe {
    int value = 0;
};

} // namespace detail

/// A synchronisation policy; all static, so that an engine stores no pointer to it.
template <class S>
concept SyncPolicy = requires(RcuHead* head, void (*call)(RcuHead*), detail::Probe* node) {
    // A shared word that this object owns.
    requires AtomicInteger<typename S::template Atomic<std::uint64_t>, std::uint64_t>;
    requires AtomicCell<typename S::template Atomic<void*>, void*>;
    // A shared word in foreign memory: a guest's RAM, a table.
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
    // RCU: nothing reachable at the start of a ReadSection is freed before its end. Nests.
    requires std::default_initializable<typename S::ReadSection>;
    // Waits for the end of every ReadSection open at the call. Not from inside one.
    S::synchronize();
    // Runs call(head) after a grace period, on any thread, possibly at once: `call` takes no lock
    // that a caller of `defer` may hold.
    S::defer(head, call);
    // Waits for every call deferred before. Not from inside a ReadSection or a deferred call.
    S::barrier();
    // A T per object and thread; the constructor's hook gets the T of a thread that ends.
    requires ThreadLocalSlot<typename S::template ThreadLocal<detail::Probe>, detail::Probe>;
    // Monotonic nanoseconds.
    { S::now() } -> std::same_as<std::uint64_t>;
    requires OneShotTimer<typename S::Timer>;
    // Nodes: nullptr without memory; `retire` destroys after a grace period.
    { S::template make<detail::Probe>() } -> std::same_as<detail::Probe*>;
    S::destroy(node);
    S::retire(node);
    // Let other threads run: `pause` in loops of a few instructions, `yield` in longer ones.
    S::pause();
    S::yield();
};

} // namespace moat
