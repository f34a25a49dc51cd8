// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tables allocated before an operation changes anything, so that it cannot run out of memory
// midway. The reserve frees unused tables at its end.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/result.hpp"
#include "moat/page_table/format.hpp"
#include "moat/page_table/table_memory.hpp"

#include <cstdint>
#include <utility>

namespace moat {

template <class Tree>
class TableReserve {
  public:
    using Memory = typename Tree::Memory;

    explicit TableReserve(Memory& memory) : memory_(memory) {}

    ~TableReserve() {
        while (first_ != nullptr)
            memory_.release(take(), bytes_lg2);
    }

    TableReserve(const TableReserve&) = delete;
    TableReserve& operator=(const TableReserve&) = delete;

    /// Errors: the memory's; tables reserved before the error stay reserved.
    Result<void> add(std::uint64_t tables) {
        for (; tables != 0; --tables) {
            const Result<PhysicalAddress> table = memory_.allocate(bytes_lg2);
            if (!table)
                return std::unexpected(table.error());
            give_back(*table);
        }
        return {};
    }

    [[nodiscard]] PhysicalAddress take() {
        MOAT_CHECK(first_ != nullptr, "as many tables were reserved as can be used");
        TableHeader* const header = std::exchange(first_, first_->next);
        return header->table;
    }

    /// Returns a table that was taken but not linked; it is still all zero.
    void give_back(PhysicalAddress table) {
        TableHeader& header = memory_.header(table);
        header.table = table;
        header.next = std::exchange(first_, &header);
    }

  private:
    static constexpr unsigned bytes_lg2 = Tree::Format::granule_lg2;

    Memory& memory_;
    TableHeader* first_ = nullptr;
};

} // namespace moat
