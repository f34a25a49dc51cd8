// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An Edit's pending work: ranges to invalidate, and the tables to free afterwards. The caller's
// callback passes an invalidation to the hardware.
#pragma once

#include "moat/core/check.hpp"
#include "moat/page_table/detail/held_tables.hpp"
#include "moat/page_table/table_memory.hpp"

#include <concepts>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace moat {

enum class CachedEntries : std::uint8_t {
    leaves,            ///< only leaves changed
    leaves_and_tables, ///< tables were removed: cached upper entries must go too
};

/// Asks for the invalidation of [start, last]. Once the callback returns, no new access uses an
/// older translation.
template <class Input>
struct InvalidationRequest {
    Input start;
    Input last; // inclusive, so that a range may end at 2^64
    CachedEntries cached = CachedEntries::leaves;
};

/// Proof that each read section that was open at its construction has ended. An invalidation that
/// waits for the readers anyway returns one, and the edit frees removed tables without another
/// wait. It is neither copied nor moved, so a callback can only return one of its own.
template <SyncPolicy Sync>
class GracePeriod {
  public:
    /// Waits. Not from inside a read section.
    [[gnu::always_inline]] GracePeriod() { Sync::synchronize(); }

    GracePeriod(const GracePeriod&) = delete;
    GracePeriod& operator=(const GracePeriod&) = delete;
};

/// What an invalidation achieved, and so when removed tables can be freed.
enum class Invalidated : std::uint8_t {
    failed,        ///< hardware may walk them: at the PageTable's end
    done,          ///< readers may be inside: after a grace period
    after_readers, ///< nobody can reach them: at once
};

/// A reference to a callable that invalidates. It returns void, or false where it failed, or a
/// GracePeriod.
template <class Input, SyncPolicy Sync>
class InvalidateRef {
  public:
    using Request = InvalidationRequest<Input>;

    template <class F>
        requires(!std::same_as<std::remove_cvref_t<F>, InvalidateRef> &&
                 (std::same_as<std::invoke_result_t<F&, const Request&>, void> ||
                  std::same_as<std::invoke_result_t<F&, const Request&>, bool> ||
                  std::same_as<std::invoke_result_t<F&, const Request&>, GracePeriod<Sync>>))
    // Implicit, like a reference.
    constexpr InvalidateRef(F& callable) // NOLINT(google-explicit-constructor)
        : callable_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
          call_([](void* target, const Request& request) -> Invalidated {
              using Outcome = std::invoke_result_t<F&, const Request&>;
              F& own = *static_cast<F*>(target);
              if constexpr (std::same_as<Outcome, bool>) {
                  return own(request) ? Invalidated::done : Invalidated::failed;
              } else {
                  own(request);
                  return std::same_as<Outcome, void> ? Invalidated::done
                                                     : Invalidated::after_readers;
              }
          }) {}

    constexpr Invalidated operator()(const Request& request) const {
        return call_(callable_, request);
    }

  private:
    void* callable_;
    Invalidated (*call_)(void*, const Request&);
};

template <class Tree>
class PendingInvalidation {
  public:
    using Input = typename Tree::Input;
    using Memory = typename Tree::Memory;
    using Sync = typename Tree::Sync;
    using Callback = InvalidateRef<Input, Sync>;
    using Held = HeldTables<Sync, Memory>;

    PendingInvalidation(Callback invalidate, Held& held) : invalidate_(invalidate), held_(held) {}

    ~PendingInvalidation() { MOAT_CHECK(!any_, "an edit was dropped before finish()"); }

    PendingInvalidation(const PendingInvalidation&) = delete;
    PendingInvalidation& operator=(const PendingInvalidation&) = delete;

    /// Adds [start, last]. Invalidates a pending range that it does not touch first, so that two
    /// distant ranges never become one invalidation of everything between.
    [[gnu::always_inline]] void cover(std::uint64_t start, std::uint64_t last) {
        if (any_) [[unlikely]]
            extend(start, last);
        else {
            any_ = true;
            request_.start = Input(start);
            request_.last = Input(last);
        }
    }

    /// Frees an unlinked table, whose range was added, after the invalidation and a grace period,
    /// which may be one.
    void remove(Memory& memory, PhysicalAddress table, unsigned bytes_lg2) {
        MOAT_CHECK(any_, "a table is removed after its range was covered");
        TableHeader& header = memory.header(table);
        header.table = table;
        header.bytes_lg2 = bytes_lg2;
        header.memory = &memory;
        header.next = std::exchange(removed_, &header);
    }

    /// Invalidates the pending range, then frees the removed tables; holds them after a failure.
    [[gnu::always_inline]] void now() {
        if (!any_)
            return;
        if (removed_ != nullptr) [[unlikely]]
            retire_tables(invalidate_tables());
        else
            (void)invalidate_(request_);
        any_ = false;
    }

    /// Both halves of now(), for a caller that reads removed tables between them.
    Invalidated invalidate_tables() {
        request_.cached = CachedEntries::leaves_and_tables;
        const Invalidated how = invalidate_(request_);
        request_.cached = CachedEntries::leaves;
        any_ = false;
        return how;
    }

    [[gnu::noinline]] void retire_tables(Invalidated how) {
        while (TableHeader* header = removed_) {
            removed_ = header->next;
            if (how == Invalidated::failed)
                held_.add(*header);
            else if (how == Invalidated::after_readers)
                free_table(&header->rcu);
            else
                Sync::defer(&header->rcu, free_table);
        }
    }

  private:
    [[gnu::noinline]] void extend(std::uint64_t start, std::uint64_t last) {
        const std::uint64_t pending_start = request_.start.value();
        const std::uint64_t pending_last = request_.last.value();
        const bool behind = start > pending_last && start - pending_last > 1;
        const bool before = pending_start > last && pending_start - last > 1;
        if (behind || before) {
            now();
            cover(start, last);
            return;
        }
        request_.start = Input(start < pending_start ? start : pending_start);
        request_.last = Input(last > pending_last ? last : pending_last);
    }

    static void free_table(RcuHead* head) {
        auto* const header = reinterpret_cast<TableHeader*>(head);
        static_cast<Memory*>(header->memory)->release(header->table, header->bytes_lg2);
    }

    Callback invalidate_;
    Held& held_;
    bool any_ = false;
    /// Valid while `any_`. Passed by reference: copying a value just stored would stall.
    InvalidationRequest<Input> request_{};
    TableHeader* removed_ = nullptr;
};

} // namespace moat
