// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The interface of memory models weaker than sequential consistency: what a load may return.
// Sequential consistency needs no object: explore/world.hpp performs it.
#pragma once

#include "lab/explore/actor.hpp"
#include "lab/explore/operation.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

namespace moat::explore {

class World;

enum class MemoryModelKind : std::uint8_t { sc, tso, c11 };

[[nodiscard]] constexpr std::string_view name(MemoryModelKind kind) {
    constexpr std::array<std::string_view, 3> names = {"sc", "tso", "c11"};
    return names[static_cast<std::size_t>(kind)];
}

[[nodiscard]] constexpr bool is_memory_access(Kind kind) {
    return kind <= Kind::fetch_and;
}

[[nodiscard]] constexpr bool is_read_modify_write(Kind kind) {
    return kind >= Kind::exchange && kind <= Kind::fetch_and;
}

[[nodiscard]] constexpr bool is_lock(Kind kind) {
    return kind >= Kind::lock && kind <= Kind::unlock_shared;
}

/// The word of `size` bytes, one to eight, at `address`, zero-extended.
[[nodiscard]] inline std::uint64_t read_word(const void* address, std::uint8_t size) {
    std::uint64_t value = 0;
    if (size == 8) [[likely]]
        std::memcpy(&value, address, 8);
    else
        std::memcpy(&value, address, size);
    return value;
}

inline void write_word(void* address, std::uint8_t size, std::uint64_t value) {
    if (size == 8) [[likely]]
        std::memcpy(address, &value, 8);
    else
        std::memcpy(address, &value, size);
}

/// The value that `operation` stores over `old`; nothing when a comparison fails.
[[nodiscard]] constexpr std::optional<std::uint64_t> value_after(const Operation& operation,
                                                                 std::uint64_t old) {
    switch (operation.kind) {
    case Kind::store:
    case Kind::exchange:
        return operation.operand;
    case Kind::compare_exchange:
        if (old != operation.expected)
            return {};
        return operation.operand;
    case Kind::fetch_add:
        return old + operation.operand;
    case Kind::fetch_sub:
        return old - operation.operand;
    case Kind::fetch_or:
        return old | operation.operand;
    case Kind::fetch_and:
        return old & operation.operand;
    default:
        return {};
    }
}

/// A model keeps its state in the arena, so that it is rewound with everything else.
class MemoryModel {
  public:
    virtual ~MemoryModel() = default;

    /// Allocates the state; called before the program's setup.
    virtual void start(World& world) = 0;

    /// Whether the model lets `fiber` perform `operation` now, whatever else it waits for.
    [[nodiscard]] virtual bool allows(Actor fiber, const Operation& operation) const = 0;

    /// In how many ways it can be performed.
    [[nodiscard]] virtual unsigned options(Actor fiber, const Operation& operation) const = 0;

    /// What other actors can observe of `operation`.
    [[nodiscard]] virtual Touch touch(const Operation& operation, Touch plain) const = 0;

    /// Performs an access to memory. Return: false where the world performs it instead, and then
    /// calls `synchronise`.
    virtual bool perform(Actor fiber, Operation& operation, unsigned option, Step& step) = 0;

    /// Updates the views after an operation that is not an access to memory.
    virtual void synchronise(Actor fiber, const Operation& operation, Step& step) = 0;

    /// The store buffers that are not empty; and the flush of the oldest store.
    [[nodiscard]] virtual ActorSet buffers() const = 0;
    [[nodiscard]] virtual Touch buffer_touch(Actor buffer) const = 0;
    virtual void flush(Actor buffer, Step& step) = 0;
};

[[nodiscard]] std::unique_ptr<MemoryModel> make_tso();
[[nodiscard]] std::unique_ptr<MemoryModel> make_c11();

} // namespace moat::explore
