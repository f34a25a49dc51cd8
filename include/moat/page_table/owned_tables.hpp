// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A pool of tables with its own memory, for software that walks tables at this process's addresses.
// Hosted: it allocates. An IOMMU in hardware needs a TablePool over memory that it can read.
#pragma once

#include "moat/page_table/table_memory.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <utility>

namespace moat {

/// Tables whose physical addresses are their addresses in this process. The system commits most of
/// the memory only when a table is first used. Thread-safe as TablePool is.
template <SyncPolicy Sync>
class OwnedTables {
  public:
    /// Room for `count` tables of 2^unit_lg2 bytes, the format's granule. Errors: `no_memory`.
    [[nodiscard]] static Result<std::unique_ptr<OwnedTables>> create(std::size_t count,
                                                                     unsigned unit_lg2 = 12) {
        const auto alignment = std::align_val_t(bit(unit_lg2));
        const bool fits = count <= std::numeric_limits<std::size_t>::max() >> unit_lg2;
        void* const memory =
            fits ? ::operator new(count << unit_lg2, alignment, std::nothrow) : nullptr;
        Bytes bytes(static_cast<std::byte*>(memory), {alignment});
        std::unique_ptr<TableHeader[]> headers(new (std::nothrow) TableHeader[count]);
        if (bytes != nullptr && headers != nullptr)
            if (auto* const made = new (std::nothrow)
                    OwnedTables(std::move(bytes), std::move(headers), count, unit_lg2))
                return std::unique_ptr<OwnedTables>(made);
        return fail(ErrorCode::no_memory, "no memory for tables", {"tables", count},
                    {"table_bytes", bit(unit_lg2)});
    }

    /// Every table must be released before the end of this object.
    [[nodiscard]] TablePool<Sync>& pool() { return pool_; }

  private:
    struct Free {
        std::align_val_t alignment;

        void operator()(std::byte* bytes) const { ::operator delete(bytes, alignment); }
    };

    using Bytes = std::unique_ptr<std::byte[], Free>;

    OwnedTables(Bytes bytes, std::unique_ptr<TableHeader[]> headers, std::size_t count,
                unsigned unit_lg2)
        : bytes_(std::move(bytes)), headers_(std::move(headers)),
          pool_({bytes_.get(), count << unit_lg2},
                PhysicalAddress(reinterpret_cast<std::uintptr_t>(bytes_.get())),
                {headers_.get(), count}, unit_lg2) {}

    Bytes bytes_;
    std::unique_ptr<TableHeader[]> headers_;
    TablePool<Sync> pool_;
};

} // namespace moat
