// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Notifier: who must hear when translations of an address space go: a processor's TLB, an IOMMU
// that maps the same range, a second MMU. An AddressSpace keeps the list.
#pragma once

#include "moat/core/range.hpp"
#include "moat/mm/device_region.hpp"
#include "moat/page_table/invalidation.hpp"

#include <atomic>
#include <cstdint>

namespace moat::mm {

/// Why a translation is to be forgotten.
enum class Change : std::uint8_t {
    unmapped,   ///< it leads nowhere now
    replaced,   ///< it leads elsewhere: RAM took the place of the zero page
    protection, ///< it permits other accesses
    split,      ///< smaller leaves say the same
    flags,      ///< accessed or dirty was cleared
    tables,     ///< nothing was mapped: empty tables go
};

template <SyncPolicy Sync>
class Notifier {
  public:
    Notifier() = default;
    virtual ~Notifier() = default;
    Notifier(const Notifier&) = delete;
    Notifier& operator=(const Notifier&) = delete;

    /// The entries of `request` have changed. When this returns, the old translations are used no
    /// more; only then is memory behind them reused. Called with the lock of the changed block
    /// held, in a read section: it must not call the address space, nor take a lock under which
    /// anybody calls it, nor wait for a grace period. A lock of its own is fine: the order is
    /// block, then notifier.
    virtual void invalidated(const InvalidationRequest<VirtualAddress>& request, Change change) = 0;

    /// The region is revoked: its leaves are gone, and faults fail. When this returns, nothing is
    /// reached through what was derived from them, also where they went earlier. Called with only
    /// revokes_mutex held and in no read section: it may wait, and take locks under which others
    /// call the space, but not for a revocation or for notifiers.
    virtual void revoked(DeviceRegion<Sync>& /*region*/) {}

  private:
    template <class>
    friend class NotifierList;

    typename Sync::template Atomic<Notifier*> next_{nullptr};
};

/// Changed under one lock of the owner's; told without any, in read sections.
template <class Sync>
class NotifierList {
  public:
    void add(Notifier<Sync>& notifier) {
        notifier.next_.store(first_.load(std::memory_order_relaxed), std::memory_order_relaxed);
        first_.store(&notifier, std::memory_order_release);
    }

    /// The caller waits for a grace period before the notifier goes.
    void remove(Notifier<Sync>& notifier) {
        auto* link = &first_;
        while (link->load(std::memory_order_relaxed) != &notifier)
            link = &link->load(std::memory_order_relaxed)->next_;
        link->store(notifier.next_.load(std::memory_order_relaxed), std::memory_order_release);
    }

    void tell(const InvalidationRequest<VirtualAddress>& request, Change change) const {
        const typename Sync::ReadSection section;
        for (Notifier<Sync>* each = first_.load(std::memory_order_acquire); each != nullptr;
             each = each->next_.load(std::memory_order_acquire))
            each->invalidated(request, change);
    }

    /// The caller keeps the list as it is.
    void tell_revoked(DeviceRegion<Sync>& region) const {
        for (Notifier<Sync>* each = first_.load(std::memory_order_acquire); each != nullptr;
             each = each->next_.load(std::memory_order_acquire))
            each->revoked(region);
    }

  private:
    typename Sync::template Atomic<Notifier<Sync>*> first_{nullptr};
};

} // namespace moat::mm
