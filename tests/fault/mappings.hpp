// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Short ways to write mappings and records, for the tests of this room.
#pragma once

#include "moat/fault/mapping.hpp"
#include "moat/fault/record.hpp"

#include <cstdint>
#include <string_view>

namespace moat::fault {

[[nodiscard]] constexpr IovaRange bytes(std::uint64_t start, std::uint64_t size) {
    return {Iova(start), ByteCount(size)};
}

[[nodiscard]] constexpr Mapping mapping(std::uint64_t start, std::uint64_t size,
                                        std::string_view label, Allows allows = Allows::read_write,
                                        std::uint64_t guard = 0) {
    return {.range = bytes(start, size),
            .guard_before = ByteCount(guard),
            .guard_after = ByteCount(guard),
            .allows = allows,
            .label = label};
}

inline constexpr Source edu = Source::pci(0, 1, 0);

[[nodiscard]] constexpr Record exact(std::uint64_t start, std::uint64_t size,
                                     Access access = Access::write) {
    return exact_record(edu, access, bytes(start, size), Reason::not_present);
}

[[nodiscard]] constexpr Record page(std::uint64_t start, Access access = Access::write) {
    return {.source = edu,
            .access = access,
            .precision = Precision::page,
            .reason = Reason::permission,
            .where = bytes(start, 4096)};
}

[[nodiscard]] constexpr Record starts(std::uint64_t start, Access access = Access::write) {
    return {.source = edu,
            .access = access,
            .precision = Precision::start,
            .reason = Reason::not_present,
            .where = bytes(start, 1)};
}

} // namespace moat::fault
