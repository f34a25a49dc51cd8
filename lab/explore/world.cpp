// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shared state as a whole: its beginning, its names, and its value as a number. What operations
// do to it is in operations.cpp.
#include "lab/explore/world.hpp"

#include <cstring>

namespace moat::explore {

World::World(MemoryModelKind kind, Execution& execution) : execution_(execution) {
    if (kind == MemoryModelKind::tso)
        model_ = make_tso();
    if (kind == MemoryModelKind::c11)
        model_ = make_c11();
}

void World::clear(unsigned failing_allocations) {
    arena_.shrink(Arena::first_byte);
    names_.clear();
    services_ = new (arena_.allocate(sizeof(Services), alignof(Services))) Services;
    services_->memory.failures_left = failing_allocations;
    services_end_ = arena_.used();
    if (model_ != nullptr)
        model_->start(*this);
    setup_begin_ = arena_.used();
}

std::string World::name_of(std::uint32_t location) const {
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

Decoder World::decoder(std::uint32_t location) const {
    const auto found = names_.find(location);
    return found == names_.end() ? nullptr : found->second.decoder;
}

[[gnu::no_sanitize_address]] std::uint64_t hash_bytes(const std::byte* from, std::size_t size,
                                                      std::uint64_t hash) {
    for (std::size_t at = 0; at + 8 <= size; at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, from + at, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

std::uint64_t World::hash() const {
    const std::size_t begin = arena_.offset_of(services_);
    return hash_bytes(arena_.base() + begin, arena_.used() - begin, 0);
}

std::uint64_t World::fingerprint() const {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::size_t at = setup_begin_; at < setup_end_; at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, arena_.base() + at, 8);
        hash = (hash ^ portable(word)) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

} // namespace moat::explore
