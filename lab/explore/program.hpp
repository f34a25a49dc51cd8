// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The explored program: a setup that builds shared state and threads, and names them.
// No engine: scenarios write programs, explore/machine.hpp runs them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace moat::explore {

class Machine;

/// Turns the value of a named word into text: "PUD LEAF special pfn=0x40000".
using Decoder = std::string (*)(std::uint64_t value);

/// Whether a thread is identical to the one made before it: it has the same body and cannot tell
/// which of the two it is, so that they can be exchanged.
enum class Alike : std::uint8_t { no, previous };

/// Handed to the program's setup, which runs before each fresh start and must do the same each
/// time. State that threads share or capture must live in the arena.
class Setup {
  public:
    explicit Setup(Machine& machine) : machine_(machine) {}

    /// An object in the arena; never destroyed, since an execution may be left half-way.
    template <class T, class... Args>
    T& make(Args&&... args) {
        return *new (allocate(sizeof(T), alignof(T))) T(std::forward<Args>(args)...);
    }

    /// A thread; `body` is copied into the arena. Threads are numbered in this order.
    template <class Body>
    void thread(std::string_view name, Body body, Alike alike = Alike::no) {
        Body& copy = make<Body>(std::move(body));
        add_thread(name, [](void* it) { (*static_cast<Body*>(it))(); }, &copy, alike);
    }

    /// Runs when all threads have ended, before the execution counts as complete.
    template <class Body>
    void at_end(Body body) {
        Body& copy = make<Body>(std::move(body));
        set_end([](void* it) { (*static_cast<Body*>(it))(); }, &copy);
    }

    /// Names the object at `address` for the timeline, which prints its values by `decoder`.
    void name(const void* address, std::string_view text, Decoder decoder = nullptr);

  private:
    void* allocate(std::size_t size, std::size_t align);
    void add_thread(std::string_view name, void (*run)(void*), void* body, Alike alike);
    void set_end(void (*run)(void*), void* body);

    Machine& machine_;
};

using Program = std::function<void(Setup&)>;

} // namespace moat::explore
