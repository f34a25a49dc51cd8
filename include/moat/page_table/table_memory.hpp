// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The TableMemory concept: where tables come from and how a physical address becomes a pointer.
// A model of it over a buffer is table_pool.hpp; an embedder brings its own.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/format.hpp"
#include "moat/sync/concept.hpp"

#include <concepts>

namespace moat {

/// What the engine keeps about a table, outside of it: a table's own words stay as they are until
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
    // Takes back what `allocate` gave, with the same size; nobody can reach it any more.
    memory.release(table, bytes_lg2);
    // The words of a table. Cheap: it is called once a level in every walk.
    { memory.words(table) } -> std::same_as<Word*>;
    // The header of a table: one each, at the same place from `allocate` to `release`.
    { memory.header(table) } -> std::same_as<TableHeader&>;
};

} // namespace moat
