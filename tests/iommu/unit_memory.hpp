// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory for an IOMMU's driver under test, and the test that each of its allocations may fail.
#pragma once

#include "moat/page_table/table_memory.hpp"

#include "soft_system.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <gtest/gtest.h>
#include <memory>

namespace moat::tests {

/// Its destructor reports a table that is still in use.
struct UnitMemory {
    static constexpr std::size_t most_tables = 64;

    explicit UnitMemory(std::size_t tables = most_tables)
        : pool({bytes->data(), tables * 4096}, PhysicalAddress(0x100000), headers, 12) {}

    struct alignas(4096) Bytes : std::array<std::byte, most_tables * 4096> {};

    std::unique_ptr<Bytes> bytes = std::make_unique<Bytes>();
    std::array<TableHeader, most_tables> headers;
    TablePool<RealSync> pool;
};

/// Opens a unit, attaches a function and maps a page, with ever more tables until all succeeds.
template <class Domain, class Registers, class... Options>
void expect_every_allocation_fails_once(const Options&... options) {
    constexpr std::uint16_t requester = 0x23;
    const auto succeeds = [](const auto& result) {
        if (!result) {
            EXPECT_EQ(result.error().code(), ErrorCode::no_memory);
        }
        return result.has_value();
    };
    bool all = false;
    for (std::size_t tables = 1; !all; ++tables) {
        ASSERT_LT(tables, UnitMemory::most_tables);
        UnitMemory memory(tables);
        Registers registers(memory.pool);
        const auto unit = Domain::Unit::open(registers, memory.pool, options...);
        if (!succeeds(unit))
            continue;
        const auto domain = Domain::create(**unit);
        if (!succeeds(domain) || !succeeds((*domain)->attach(requester)))
            continue;
        all = succeeds((*domain)->map(Iova(0x5000), ByteCount(4096), PhysicalAddress(0),
                                      Attributes::read | Attributes::write));
        EXPECT_TRUE((*unit)->detach(requester));
    }
}

} // namespace moat::tests
