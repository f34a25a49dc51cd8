// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The TableMemory concept: allocates tables and converts their physical addresses to pointers.
// TablePool models it over the caller's buffer; embedders may bring their own.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/check.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/format.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

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

/// Allocates tables of 2^unit_lg2 bytes (a format's granule) and, for concatenated top tables,
/// larger ones, from the caller's buffer: plain memory, a guest's RAM, a shared file. Headers lie
/// in a second buffer, which a writer of the first cannot reach. Both outlive the pool.
/// Thread-safe: takes one mutex per table.
template <SyncPolicy Sync>
class TablePool {
  public:
    /// `physical`: the address of `tables` for hardware that walks them; both are aligned to
    /// 2^unit_lg2. `headers`: one for each 2^unit_lg2 bytes; tables without one stay unused.
    TablePool(std::span<std::byte> tables, PhysicalAddress physical, std::span<TableHeader> headers,
              unsigned unit_lg2)
        : offset_(reinterpret_cast<std::uintptr_t>(tables.data()) - physical.value()),
          physical_(physical.value()), headers_(headers.data()), unit_lg2_(unit_lg2),
          capacity_(tables.size() >> unit_lg2 < headers.size() ? tables.size() >> unit_lg2
                                                               : headers.size()) {
        MOAT_CHECK(is_aligned(reinterpret_cast<std::uintptr_t>(tables.data()), unit_lg2) &&
                       is_aligned(physical.value(), unit_lg2),
                   "a pool's buffer and its physical address are aligned to a table's size");
    }

    /// Waits for pending frees. Every table must have been released.
    ~TablePool() {
        Sync::barrier();
        MOAT_CHECK(units_in_use() == 0, "every table was given back to its pool");
    }

    TablePool(const TablePool&) = delete;
    TablePool& operator=(const TablePool&) = delete;

    /// Errors: no_memory (the buffer is full); unsupported (a table smaller than a unit, or of 2^64
    /// bytes).
    [[nodiscard]] Result<PhysicalAddress> allocate(unsigned bytes_lg2) {
        if (bytes_lg2 < unit_lg2_ || bytes_lg2 >= 64) [[unlikely]]
            return fail(ErrorCode::unsupported, "a table has at least one unit of its pool",
                        {"table_lg2", bytes_lg2}, {"unit_lg2", unit_lg2_});
        const Result<PhysicalAddress> table =
            bytes_lg2 == unit_lg2_ ? take_unit() : take_fresh(bytes_lg2);
        if (table)
            for (Word *word = words(*table), *end = word + (bit(bytes_lg2) / sizeof(Word));
                 word != end; ++word)
                *word = 0;
        return table;
    }

    void release(PhysicalAddress table, unsigned bytes_lg2) {
        const ExclusiveLock lock(mutex_);
        for (std::uint64_t at = 0; at != bit(bytes_lg2); at += bit(unit_lg2_))
            put_free(PhysicalAddress(table.value() + at));
        in_use_ -= bit(bytes_lg2 - unit_lg2_);
    }

    [[nodiscard]] Word* words(PhysicalAddress table) const {
        // One addition: every walk calls this once a level.
        return reinterpret_cast<Word*>(table.value() + offset_);
    }

    [[nodiscard]] TableHeader& header(PhysicalAddress table) const {
        return headers_[(table.value() - physical_) >> unit_lg2_];
    }

    /// Units that hold tables, pending frees included.
    [[nodiscard]] std::uint64_t units_in_use() const {
        const ExclusiveLock lock(mutex_);
        return in_use_;
    }

  private:
    Result<PhysicalAddress> take_unit() {
        const ExclusiveLock lock(mutex_);
        if (free_ != nullptr) {
            TableHeader* const header = free_;
            free_ = header->next;
            ++in_use_;
            return header->table;
        }
        return bump(unit_lg2_);
    }

    Result<PhysicalAddress> take_fresh(unsigned bytes_lg2) {
        const ExclusiveLock lock(mutex_);
        const std::uint64_t at = physical_ + (fresh_ << unit_lg2_);
        const std::uint64_t skipped = (0 - at) & low_bits(bytes_lg2);
        if (capacity_ - fresh_ < (skipped >> unit_lg2_) + bit(bytes_lg2 - unit_lg2_))
            return no_room(bytes_lg2);
        for (std::uint64_t i = 0; i != skipped >> unit_lg2_; ++i)
            put_free(PhysicalAddress(physical_ + (fresh_++ << unit_lg2_)));
        return bump(bytes_lg2);
    }

    std::unexpected<Error> no_room(unsigned bytes_lg2) const {
        return fail(ErrorCode::no_memory, "the pool of tables is exhausted", {"tables", capacity_},
                    {"table_bytes", bit(bytes_lg2)});
    }

    Result<PhysicalAddress> bump(unsigned bytes_lg2) MOAT_REQUIRES(mutex_) {
        const std::uint64_t units = bit(bytes_lg2 - unit_lg2_);
        if (capacity_ - fresh_ < units)
            return no_room(bytes_lg2);
        const std::uint64_t unit = fresh_;
        fresh_ += units;
        in_use_ += units;
        return PhysicalAddress(physical_ + (unit << unit_lg2_));
    }

    void put_free(PhysicalAddress table) MOAT_REQUIRES(mutex_) {
        TableHeader& each = header(table);
        each.table = table;
        each.next = free_;
        free_ = &each;
    }

    const std::uintptr_t offset_;
    const std::uint64_t physical_;
    TableHeader* const headers_;
    const unsigned unit_lg2_;
    const std::uint64_t capacity_;
    mutable typename Sync::Mutex mutex_;
    /// The first unit that was never allocated.
    std::uint64_t fresh_ MOAT_GUARDED_BY(mutex_) = 0;
    std::uint64_t in_use_ MOAT_GUARDED_BY(mutex_) = 0;
    TableHeader* free_ MOAT_GUARDED_BY(mutex_) = nullptr;
};

} // namespace moat
