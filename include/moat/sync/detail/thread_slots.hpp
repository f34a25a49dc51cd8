// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A T per object and thread, found by one indexed load; a hook gets the T of a thread that ends.
// Only sync/real.hpp uses this file.
//
// Each object owns an index, each thread an array of pointers. Only its thread reads the array,
// without a lock. Writers hold the registry's mutex, so that a destroyed object can clear its entry
// in the arrays of threads that no longer use it.
#pragma once

#include "moat/core/check.hpp"
#include "moat/sync/detail/standard_mutex.hpp"
#include "moat/sync/detail/thread_end.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace moat::thread_slots {

/// One thread's entry of one object; the base of the node that holds the T.
struct NodeBase {
    virtual ~NodeBase() = default;
    /// Runs the owner's hook when the thread ends, under the registry's mutex.
    virtual void thread_exits() = 0;
};

/// The first objects' values need no bounds check; the last entry stays empty.
inline constexpr std::size_t direct_values = 16;

struct Array {
    NodeBase** nodes = nullptr;
    std::size_t count = 0;
    std::array<void*, direct_values> values{};
};

/// Trivial, so that reading it needs no initialisation guard.
inline constinit thread_local Array own_array{};

struct Registry {
    StandardMutex mutex;
    std::vector<std::size_t> free_indices MOAT_GUARDED_BY(mutex);
    std::size_t next_index MOAT_GUARDED_BY(mutex) = 0;
};

/// Never destroyed: threads may end after the end of main.
inline Registry& registry() {
    static Registry* const the_registry = new Registry;
    return *the_registry;
}

/// Runs the exit hooks of the thread that ends.
inline void end_thread(void*) {
    const ExclusiveLock lock(registry().mutex);
    own_array.values = {};
    for (std::size_t i = 0; i != own_array.count; ++i)
        if (NodeBase* node = std::exchange(own_array.nodes[i], nullptr))
            node->thread_exits();
    delete[] own_array.nodes;
    own_array = {};
}

/// Makes room for `index`. Return: false when memory failed.
inline bool grow_own_array(std::size_t index) MOAT_REQUIRES(registry().mutex) {
    if (index < own_array.count)
        return true;
    const std::size_t count = 2 * index + 8;
    auto** const nodes = new (std::nothrow) NodeBase*[count]();
    if (nodes == nullptr)
        return false;
    if (own_array.count == 0)
        at_thread_end(end_thread);
    for (std::size_t i = 0; i != own_array.count; ++i)
        nodes[i] = own_array.nodes[i];
    delete[] own_array.nodes;
    own_array.nodes = nodes;
    own_array.count = count;
    return true;
}

/// Models ThreadLocalSlot. The hook and `for_each`'s visitor run under the registry's mutex, as
/// does a thread's first `local()`: they take no lock that may be held there. Destroying the object
/// destroys every thread's T without the hook; no thread may use it then.
template <class T>
class ThreadLocal {
  public:
    using ExitHook = void (*)(void* context, T& value);

    ThreadLocal(ExitHook hook, void* context) : hook_(hook), context_(context) {
        Registry& all = registry();
        const ExclusiveLock lock(all.mutex);
        if (all.free_indices.empty()) {
            index_ = all.next_index++;
            all.free_indices.reserve(all.next_index);
        } else {
            index_ = all.free_indices.back();
            all.free_indices.pop_back();
        }
        direct_index_ = std::min(index_, direct_values - 1);
    }

    ~ThreadLocal() {
        Registry& all = registry();
        const ExclusiveLock lock(all.mutex);
        while (Node* node = first_) {
            node->place->nodes[index_] = nullptr;
            node->place->values[direct_index_] = nullptr;
            first_ = node->next;
            delete node;
        }
        all.free_indices.push_back(index_);
    }

    ThreadLocal(const ThreadLocal&) = delete;
    ThreadLocal& operator=(const ThreadLocal&) = delete;

    /// A few instructions on the hottest paths; a call would double the cost.
    [[nodiscard, gnu::always_inline]] T* local() {
        if (void* const value = own_array.values[direct_index_]) [[likely]]
            return static_cast<T*>(value);
        return look_up();
    }

    void for_each(void (*visit)(void*, T&), void* context) {
        const ExclusiveLock lock(registry().mutex);
        for (Node* node = first_; node != nullptr; node = node->next)
            visit(context, node->value);
    }

  private:
    struct Node final : NodeBase {
        void thread_exits() override {
            owner->hook_(owner->context_, value);
            *link = next;
            if (next != nullptr)
                next->link = link;
            delete this;
        }

        T value{};
        ThreadLocal* owner = nullptr;
        Array* place = nullptr;
        Node* next = nullptr;
        Node** link = nullptr;
    };

    [[gnu::noinline]] T* look_up() {
        if (index_ < own_array.count && own_array.nodes[index_] != nullptr)
            return &static_cast<Node*>(own_array.nodes[index_])->value;
        return first_use();
    }

    [[gnu::noinline, gnu::cold]] T* first_use() {
        const ExclusiveLock lock(registry().mutex);
        if (!grow_own_array(index_))
            return nullptr;
        Node* node = new (std::nothrow) Node;
        if (node == nullptr)
            return nullptr;
        node->owner = this;
        node->place = &own_array;
        node->next = first_;
        node->link = &first_;
        if (first_ != nullptr)
            first_->link = &node->next;
        first_ = node;
        own_array.nodes[index_] = node;
        if (index_ < direct_values - 1)
            own_array.values[index_] = &node->value;
        return &node->value;
    }

    ExitHook hook_;
    void* context_;
    std::size_t index_ = 0;
    std::size_t direct_index_ = 0;
    /// The nodes of all threads, guarded by the registry's mutex.
    Node* first_ = nullptr;
};

} // namespace moat::thread_slots
