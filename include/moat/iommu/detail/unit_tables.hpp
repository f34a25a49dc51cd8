// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Allocates the tables that a unit's driver has for its lifetime: all or none.
#pragma once

#include "moat/core/result.hpp"
#include "moat/page_table/table_memory.hpp"

#include <array>
#include <cstddef>

namespace moat::iommu {

/// Tables of 2^bytes_lg2 zeroed bytes each. Errors: no_memory; nothing is allocated then.
template <TableMemory Memory, std::size_t Count>
[[nodiscard]] Result<std::array<PhysicalAddress, Count>>
allocate_tables(Memory& memory, const std::array<unsigned, Count>& bytes_lg2) {
    std::array<PhysicalAddress, Count> tables;
    for (std::size_t i = 0; i != Count; ++i) {
        const auto table = memory.allocate(bytes_lg2[i]);
        if (!table) {
            while (i-- != 0)
                memory.release(tables[i], bytes_lg2[i]);
            return std::unexpected(table.error());
        }
        tables[i] = *table;
    }
    return tables;
}

} // namespace moat::iommu
