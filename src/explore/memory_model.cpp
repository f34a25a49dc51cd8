// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Words of one to eight bytes, and the arithmetic of read-modify-write operations.
#include "moat/explore/memory_model.hpp"

#include "moat/core/check.hpp"

#include <cstring>

namespace moat::explore {

std::uint64_t read_word(const void* address, std::uint8_t size) {
    if (size == 8) [[likely]] {
        std::uint64_t value;
        std::memcpy(&value, address, 8);
        return value;
    }
    std::uint64_t value = 0;
    std::memcpy(&value, address, size);
    return value;
}

void write_word(void* address, std::uint8_t size, std::uint64_t value) {
    if (size == 8) [[likely]]
        std::memcpy(address, &value, 8);
    else
        std::memcpy(address, &value, size);
}

std::optional<std::uint64_t> value_after(const Operation& operation, std::uint64_t old) {
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

} // namespace moat::explore
