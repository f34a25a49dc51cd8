// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an Edit still owes: the ranges whose cached translations must go, and the tables that may be
// freed only afterwards. How an invalidation reaches the hardware is the caller's callback.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/function_ref.hpp"
#include "moat/page_table/table_memory.hpp"

#include <cstdint>
#include <utility>

namespace moat {

enum class CachedEntries : std::uint8_t {
    leaves,            ///< only leaves changed
    leaves_and_tables, ///< tables were removed: cached upper entries must go too
};

/// "Forget what you cached of [start, last]." When the callback returns, no translation from before
/// it is used for a new access.
template <class Input>
struct InvalidationRequest {
    Input start;
    Input last; // inclusive, so that a range may end at 2^64
    CachedEntries cached;
};

template <class Tree>
class PendingInvalidation {
  public:
    using Input = typename Tree::Input;
    using Memory = typename Tree::Memory;
    using Sync = typename Tree::Sync;
    using Callback = FunctionRef<void(const InvalidationRequest<Input>&)>;

    explicit PendingInvalidation(Callback invalidate) : invalidate_(invalidate) {}

    ~PendingInvalidation() {
        MOAT_CHECK(!any_ && removed_ == nullptr, "an edit was dropped before finish()");
    }

    PendingInvalidation(const PendingInvalidation&) = delete;
    PendingInvalidation& operator=(const PendingInvalidation&) = delete;

    /// [start, last] changed. A range that does not touch what is pending sends that off first, so
    /// that two far ranges never become an invalidation of all that lies between.
    [[gnu::always_inline]] void cover(std::uint64_t start, std::uint64_t last) {
        if (any_) [[unlikely]]
            extend(start, last);
        else {
            any_ = true;
            start_ = start;
            last_ = last;
        }
    }

    /// The table is unlinked; free it after the invalidation and a grace period. Its range is
    /// covered already, or before anything else is.
    void remove(Memory& memory, PhysicalAddress table, unsigned bytes_lg2) {
        TableHeader& header = memory.header(table);
        header.table = table;
        header.bytes_lg2 = bytes_lg2;
        header.memory = &memory;
        header.next = std::exchange(removed_, &header);
    }

    /// Invalidates what is pending; then hands the removed tables over to be freed.
    [[gnu::always_inline]] void now() {
        if (any_) {
            invalidate_(
                {Input(start_), Input(last_),
                 removed_ == nullptr ? CachedEntries::leaves : CachedEntries::leaves_and_tables});
            any_ = false;
        }
        if (removed_ != nullptr) [[unlikely]]
            retire_tables();
    }

  private:
    [[gnu::noinline]] void extend(std::uint64_t start, std::uint64_t last) {
        const bool behind = start > last_ && start - last_ > 1;
        const bool before = start_ > last && start_ - last > 1;
        if (behind || before) {
            now();
            cover(start, last);
            return;
        }
        start_ = start < start_ ? start : start_;
        last_ = last > last_ ? last : last_;
    }

    [[gnu::noinline]] void retire_tables() {
        while (TableHeader* header = removed_) {
            removed_ = header->next;
            Sync::defer(&header->rcu, [](RcuHead* head) {
                auto* const owner = reinterpret_cast<TableHeader*>(head);
                static_cast<Memory*>(owner->memory)->release(owner->table, owner->bytes_lg2);
            });
        }
    }

    Callback invalidate_;
    bool any_ = false;
    std::uint64_t start_ = 0;
    std::uint64_t last_ = 0;
    TableHeader* removed_ = nullptr;
};

} // namespace moat
