// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// States as numbers: whether the program has come back to where it was, and how it ended.
#include "lab/explore/machine.hpp"

#include <bit>
#include <cstring>

namespace moat::explore {

namespace {

/// Reads stacks, and so what a sanitizer keeps between the variables there.
[[nodiscard, gnu::no_sanitize_address]] std::uint64_t
hash_bytes(const std::byte* from, std::size_t size, std::uint64_t hash) {
    for (std::size_t at = 0; at + 8 <= size; at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, from + at, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

} // namespace

std::uint64_t Machine::hash_of_everything() const {
    const std::size_t begin = arena_.offset_of(services_);
    std::uint64_t hash = hash_bytes(arena_.base() + begin, arena_.used() - begin, 0);
    for (ActorSet rest = status_.live; !rest.empty(); rest = rest.tail()) {
        const Actor actor = rest.first();
        const auto* const stack = static_cast<const std::byte*>(fibers_[actor].stack);
        const auto size = static_cast<std::size_t>(arena_.stack_top(actor) - stack);
        hash = hash_bytes(stack, size, hash + actor + size);
    }
    return hash;
}

/// Compares with the latest depth that is a power of two, so that the same path is always judged
/// alike (Brent's algorithm). A circle in which somebody who could move never did is unfair, and
/// no livelock.
void Machine::look_for_livelock() {
    const auto landmark = static_cast<std::size_t>(std::bit_width(depth_) - 1);
    const std::size_t begin = std::size_t{1} << landmark;
    const std::uint64_t hash = hash_of_everything();
    if (depth_ == begin) {
        landmarks_[landmark] = hash;
        return;
    }
    if (hash != landmarks_[landmark] || status_.enabled.empty())
        return;
    ActorSet moved;
    for (std::size_t at = begin; at != depth_; ++at)
        moved.add(steps_[at].actor);
    ActorSet could_move;
    for (std::size_t at = begin; at != depth_; ++at)
        could_move = could_move | enabled_at_[at];
    if ((could_move - moved).empty())
        record(ViolationKind::livelock,
               "all who can move do so for ever, and come back to the same state", moved.first());
    if (violation_)
        status_.enabled = {};
}

std::uint64_t Machine::fingerprint() const {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::size_t at = heap_begin_; at < heap_end_; at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, arena_.base() + at, 8);
        hash = (hash ^ portable(word)) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

} // namespace moat::explore
