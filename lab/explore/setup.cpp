// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a program's setup tells the machine: threads, memory, names; and the names' way back.
#include "lab/explore/machine.hpp"

#include <utility>

namespace moat::explore {

void Setup::name(const void* address, std::string_view text, Decoder decoder) {
    machine_.names_[machine_.arena_.offset_of(address)] = {std::string(text), decoder};
}

void* Setup::allocate(std::size_t size, std::size_t align) {
    void* const memory = machine_.allocate(size, align);
    MOAT_CHECK(memory != nullptr, "the program's shared state fits the arena");
    return memory;
}

void Setup::add_thread(std::string_view name, void (*run)(void*), void* body, Alike alike) {
    MOAT_CHECK(machine_.thread_count_ < most_threads, "no more threads than the explorer holds");
    const auto actor = static_cast<Actor>(machine_.thread_count_++);
    machine_.bodies_[actor] = {run, body};
    machine_.thread_names_[actor] = name;
    if (alike == Alike::previous && machine_.options_.symmetry == Symmetry::ordered) {
        MOAT_CHECK(actor != 0, "a thread is like one that was made before it");
        machine_.alike_.add(actor);
    }
}

void Setup::set_end(void (*run)(void*), void* body) {
    machine_.end_ = {run, body};
}

std::string Machine::actor_name(Actor actor) const {
    if (actor < thread_count_)
        return thread_names_[actor];
    if (actor == reclaimer)
        return "reclaimer";
    if (actor == timer_service)
        return "timers";
    if (actor == nobody)
        return "the final check";
    return actor_name(actor - first_buffer) + " buffer";
}

std::string Machine::location_name(std::uint32_t location) const {
    const auto found = names_.find(location);
    if (found != names_.end())
        return found->second.text;
    if (services_ != nullptr) {
        if (location == arena_.offset_of(&services_->rcu))
            return "rcu";
        if (location == arena_.offset_of(&services_->deferred))
            return "deferred";
        if (location == arena_.offset_of(&services_->time))
            return "time";
    }
    std::string text = "+";
    return text.append(std::to_string(location));
}

Decoder Machine::decoder(std::uint32_t location) const {
    const auto found = names_.find(location);
    return found == names_.end() ? nullptr : found->second.decoder;
}

} // namespace moat::explore
