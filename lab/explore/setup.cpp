// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Setup: passes a program's threads, memory and names to the machine.
#include "lab/explore/machine.hpp"

namespace moat::explore {

void Setup::name(const void* address, std::string_view text, Decoder decoder) {
    machine_.world_.name(address, text, decoder);
}

void* Setup::allocate(std::size_t size, std::size_t align) {
    void* const memory = machine_.allocate(size, align);
    MOAT_CHECK(memory != nullptr, "the program's shared state fits the arena");
    return memory;
}

void Setup::add_thread(std::string_view name, void (*run)(void*), void* body, Alike alike) {
    Threads& threads = machine_.threads_;
    MOAT_CHECK(threads.count < most_threads, "no more threads than the explorer holds");
    const auto actor = static_cast<Actor>(threads.count++);
    threads.bodies[actor] = {run, body};
    threads.names[actor] = name;
    if (alike == Alike::previous && machine_.options().symmetry == Symmetry::ordered) {
        MOAT_CHECK(actor != 0, "a thread is like one that was made before it");
        threads.alike.add(actor);
    }
}

void Setup::set_end(void (*run)(void*), void* body) {
    machine_.threads_.end = {run, body};
}

std::string Threads::name(Actor actor) const {
    if (actor < count)
        return names[actor];
    if (actor == reclaimer)
        return "reclaimer";
    if (actor == timer_service)
        return "timers";
    if (actor == nobody)
        return "the final check";
    return name(actor - first_buffer) + " buffer";
}

} // namespace moat::explore
