// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Actors, which take steps: threads of the program, services of the policy, store buffers; and
// sets. Plain numbers and bit masks. Used everywhere in the explorer.
#pragma once

#include <bit>
#include <cstdint>

namespace moat::explore {

/// Threads of the program come first, in the order of their creation; then the RCU reclaimer and
/// the timer service; from `first_buffer` on the store buffers (tso), one a fiber.
using Actor = unsigned;

inline constexpr Actor most_threads = 14;
inline constexpr Actor reclaimer = 14;
inline constexpr Actor timer_service = 15;
inline constexpr Actor most_fibers = 16;
inline constexpr Actor first_buffer = 16;
inline constexpr Actor most_actors = 32;
/// The setup, and the final check.
inline constexpr Actor nobody = most_actors;

[[nodiscard]] constexpr Actor buffer_of(Actor fiber) {
    return first_buffer + fiber;
}

class ActorSet {
  public:
    constexpr ActorSet() = default;

    [[nodiscard]] static constexpr ActorSet of(Actor actor) { return ActorSet(1U << actor); }

    [[nodiscard]] constexpr bool contains(Actor actor) const { return (bits_ >> actor & 1U) != 0; }

    [[nodiscard]] constexpr bool empty() const { return bits_ == 0; }

    /// Without branches, and without an instruction that baseline x86-64 does not have.
    [[nodiscard]] constexpr unsigned count() const {
        std::uint32_t pairs = bits_ - (bits_ >> 1 & 0x55555555U);
        pairs = (pairs & 0x33333333U) + (pairs >> 2 & 0x33333333U);
        return (((pairs + (pairs >> 4)) & 0x0f0f0f0fU) * 0x01010101U) >> 24;
    }

    [[nodiscard]] constexpr std::uint32_t bits() const { return bits_; }

    /// The lowest; the set is not empty.
    [[nodiscard]] constexpr Actor first() const {
        return static_cast<Actor>(std::countr_zero(bits_));
    }

    /// The member with `index` lower members in the set. Without branches for the first few, since
    /// a random index cannot be predicted.
    [[nodiscard]] constexpr Actor at(unsigned index) const {
        std::uint32_t rest = bits_;
        for (unsigned lower = 0; lower != 3; ++lower)
            rest &= rest - (lower < index ? 1U : 0U);
        for (; index > 3; --index)
            rest &= rest - 1;
        return static_cast<Actor>(std::countr_zero(rest));
    }

    constexpr void add(Actor actor) { bits_ |= 1U << actor; }

    constexpr void remove(Actor actor) { bits_ &= ~(1U << actor); }

    /// The set without its lowest member: `for (rest = set; !rest.empty(); rest = rest.tail())`.
    [[nodiscard]] constexpr ActorSet tail() const { return ActorSet(bits_ & (bits_ - 1)); }

    friend constexpr ActorSet operator|(ActorSet a, ActorSet b) {
        return ActorSet(a.bits_ | b.bits_);
    }

    friend constexpr ActorSet operator&(ActorSet a, ActorSet b) {
        return ActorSet(a.bits_ & b.bits_);
    }

    friend constexpr ActorSet operator-(ActorSet a, ActorSet b) {
        return ActorSet(a.bits_ & ~b.bits_);
    }

    friend constexpr bool operator==(ActorSet, ActorSet) = default;

  private:
    constexpr explicit ActorSet(std::uint32_t bits) : bits_(bits) {}

    std::uint32_t bits_ = 0;
};

} // namespace moat::explore
