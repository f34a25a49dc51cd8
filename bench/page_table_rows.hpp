// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the parts of bench_page_table share: a tree with its memory, and the same work by hand on
// x86-64's bits. The rows are in page_table_bench.cpp and page_table_ranges.cpp.
#pragma once

#include "moat/page_table/edit.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include "harness.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

namespace moat::bench {

void map_unmap_runs(Suite& suite);
void beside_one_page(Suite& suite);
void across_tables(Suite& suite);
void whole_gigabytes(Suite& suite);
void made_and_removed(Suite& suite);

inline constexpr std::uint64_t page = 4096;

/// Zeroed memory, aligned to 2 MiB.
class Buffer {
  public:
    explicit Buffer(std::size_t bytes)
        : bytes_(bytes), memory_(static_cast<std::byte*>(std::aligned_alloc(2U << 20, bytes))) {
        std::fill_n(memory_.get(), bytes, std::byte{0});
    }

    [[nodiscard]] std::span<std::byte> span() const { return {memory_.get(), bytes_}; }

  private:
    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };

    std::size_t bytes_;
    std::unique_ptr<std::byte[], Free> memory_;
};

/// A tree of one format, with 4 levels, and its memory; physical addresses are pointers.
template <class Format>
struct Fixture {
    using Types = Tree<Format, RealSync, TablePool<RealSync>>;
    using Input = typename Format::Input;

    explicit Fixture(std::size_t bytes = 64U << 20)
        : buffer(bytes), headers(bytes >> Format::granule_lg2),
          pool(buffer.span(),
               PhysicalAddress(reinterpret_cast<std::uintptr_t>(buffer.span().data())), headers,
               Format::granule_lg2),
          table(*PageTable<Types>::create(pool, 4)) {}

    // Inlined, as both would be in a caller's own loop and the hand-written sides are.

    [[gnu::always_inline]] void map(std::uint64_t at, std::uint64_t size, std::uint64_t physical) {
        auto edit = table.edit(ignore);
        if (!edit.map(Input(at), ByteCount(size), PhysicalAddress(physical), read_write))
            std::abort();
        edit.finish();
    }

    [[gnu::always_inline]] void unmap(std::uint64_t at, std::uint64_t size) {
        auto edit = table.edit(ignore);
        if (!edit.unmap(Input(at), ByteCount(size), {.tables = CoveredTables::keep}))
            std::abort();
        edit.finish();
    }

    /// Tables down to level 0 for [at, at + size), with nothing in them.
    void build(std::uint64_t at, std::uint64_t size) {
        auto edit = table.edit(ignore);
        if (!edit.map(Input(at), ByteCount(size), PhysicalAddress(0), read_write,
                      {.largest_leaf_lg2 = Format::granule_lg2}))
            std::abort();
        edit.finish();
        unmap(at, size);
    }

    Buffer buffer;
    std::vector<TableHeader> headers;
    TablePool<RealSync> pool;
    PageTable<Types> table;

    static constexpr auto ignore = [](const InvalidationRequest<Input>&) {};
};

using X86 = formats::X86_64<4>;

/// The hand-written side: four levels of x86-64, no abstraction.
namespace by_hand {

inline std::uint64_t load(const std::uint64_t& entry) {
    return std::atomic_ref(const_cast<std::uint64_t&>(entry)).load(std::memory_order_relaxed);
}

inline void store(std::uint64_t& entry, std::uint64_t value) {
    std::atomic_ref(entry).store(value, std::memory_order_relaxed);
}

/// The entry of level 0 for `address`; nullptr at a hole or a large leaf.
inline std::uint64_t* find_entry(std::uint64_t* root, std::uint64_t address) {
    std::uint64_t* table = root;
    for (unsigned shift = 39; shift != 12; shift -= 9) {
        const std::uint64_t entry = load(table[(address >> shift) & 511]);
        if ((entry & 0x81) != 1)
            return nullptr;
        table = reinterpret_cast<std::uint64_t*>(entry & 0xffffffffff000);
    }
    return &table[(address >> 12) & 511];
}

inline std::uint64_t translate(std::uint64_t* root, std::uint64_t address) {
    const std::uint64_t* table = root;
    for (unsigned shift = 39;; shift -= 9) {
        const std::uint64_t entry = load(table[(address >> shift) & 511]);
        if ((entry & 1) == 0)
            return ~std::uint64_t{0};
        if (shift == 12 || (entry & 0x80) != 0) {
            const std::uint64_t offset = (std::uint64_t{1} << shift) - 1;
            return (entry & 0xffffffffff000 & ~offset) | (address & offset);
        }
        table = reinterpret_cast<const std::uint64_t*>(entry & 0xffffffffff000);
    }
}

inline bool map_one(std::uint64_t* root, std::uint64_t address, std::uint64_t word) {
    std::uint64_t* entry = find_entry(root, address);
    if (entry == nullptr || load(*entry) != 0)
        return false;
    store(*entry, word);
    return true;
}

inline bool unmap_one(std::uint64_t* root, std::uint64_t address) {
    std::uint64_t* entry = find_entry(root, address);
    if (entry == nullptr || (load(*entry) & 1) == 0)
        return false;
    store(*entry, 0);
    return true;
}

/// `count` checked stores, one after the other.
inline bool fill(std::uint64_t* entries, unsigned count, std::uint64_t word) {
    for (unsigned i = 0; i != count; ++i, word += page) {
        if (load(entries[i]) != 0)
            return false;
        store(entries[i], word);
    }
    return true;
}

/// The same, four an iteration: four looks, then four stores.
inline bool fill_by_4(std::uint64_t* entries, unsigned count, std::uint64_t word) {
    for (unsigned i = 0; i != count; i += 4, word += 4 * page) {
        if ((load(entries[i]) | load(entries[i + 1]) | load(entries[i + 2]) |
             load(entries[i + 3])) != 0)
            return false;
        store(entries[i], word);
        store(entries[i + 1], word + page);
        store(entries[i + 2], word + 2 * page);
        store(entries[i + 3], word + 3 * page);
    }
    return true;
}

/// Takes back what `fill_by_4` wrote: four looks, then four stores.
inline bool clear_by_4(std::uint64_t* entries, unsigned count) {
    for (unsigned i = 0; i != count; i += 4) {
        if ((load(entries[i]) & load(entries[i + 1]) & load(entries[i + 2]) & load(entries[i + 3]) &
             1) == 0)
            return false;
        store(entries[i], 0);
        store(entries[i + 1], 0);
        store(entries[i + 2], 0);
        store(entries[i + 3], 0);
    }
    return true;
}

} // namespace by_hand

inline constexpr std::uint64_t gigabyte = std::uint64_t{1} << 30;
inline constexpr std::uint64_t writable_page = 0x8000000000000003;

inline std::uint64_t* root_of(const auto& fixture) {
    return reinterpret_cast<std::uint64_t*>(fixture.table.root().table.value());
}

} // namespace moat::bench
