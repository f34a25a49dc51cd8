// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tables set aside before an operation changes anything, so that it cannot run out half-way.
// What was not used goes back when the reserve goes.
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

    /// Errors: the memory's own; what was reserved until then stays reserved.
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

    /// A table that was taken and not linked after all; all zero, as it was.
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
