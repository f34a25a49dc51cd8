// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The TableMemory concept: allocates tables and converts their physical addresses to pointers.
// table_pool.hpp models it over a buffer; embedders may bring their own.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/format.hpp"
#include "moat/sync/concept.hpp"

#include <concepts>

namespace moat {

/// The engine's data about a table. It lies outside the table, whose words stay unchanged until
/// neither a walker nor a device can read them.
struct TableHeader {
    RcuHead rcu; // the first member: the deferred call finds its header by it
    TableHeader* next = nullptr;
    PhysicalAddress table;
    unsigned bytes_lg2 = 0;
    void* memory = nullptr;
};

/// Every function may be called by several threads at once.
template <class M>
concept TableMemory = requires(M& memory, PhysicalAddress table, unsigned bytes_lg2) {
    // A table of 2^bytes_lg2 bytes, aligned to its size, all zero; or no_memory.
    { memory.allocate(bytes_lg2) } -> std::same_as<Result<PhysicalAddress>>;
    // Frees a table of `allocate`, with the same size, that nobody can reach any more.
    memory.release(table, bytes_lg2);
    // The words of a table. Must be cheap: every walk calls it once a level.
    { memory.words(table) } -> std::same_as<Word*>;
    // The header of a table, at the same address from `allocate` to `release`.
    { memory.header(table) } -> std::same_as<TableHeader&>;
};

} // namespace moat
