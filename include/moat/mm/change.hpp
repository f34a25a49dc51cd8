// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Changes of an address space: what each operation returns, so that callers need not read the
// tables again, and how others are notified: a processor's TLB, an IOMMU that maps the same range,
// a second MMU. An AddressSpace keeps the list of notifiers.
#pragma once

#include "moat/core/range.hpp"
#include "moat/mm/vma.hpp"
#include "moat/page_table/attributes.hpp"
#include "moat/page_table/invalidation.hpp"

#include <atomic>
#include <cstdint>

namespace moat::mm {

enum class Access : std::uint8_t { read, write, execute };

/// A leaf as it was at one moment.
struct LeafView {
    VirtualAddress start;
    PhysicalAddress physical; ///< of `start`
    unsigned size_lg2 = 0;
    Attributes attributes = Attributes::none;

    [[nodiscard]] constexpr VirtualRange range() const {
        return {start, ByteCount(std::uint64_t{1} << size_lg2)};
    }

    /// The physical address of `address`, which lies in the leaf.
    [[nodiscard]] constexpr PhysicalAddress physical_of(VirtualAddress address) const {
        return physical + (address - start);
    }
};

enum class FaultOutcome : std::uint8_t {
    installed, ///< there was no leaf before
    present,   ///< another thread was first, or the access needed no fault
    upgraded,  ///< the leaf became writable: RAM replaced the zero page
};

struct Fault {
    FaultOutcome outcome;
    LeafView leaf; ///< as it was under its block's lock
};

/// Result of splitting one leaf.
enum class LeafChange : std::uint8_t {
    split,     ///< smaller leaves replace it; every address translates as before
    unmapped,  ///< a device's leaf, which is never split: the next access faults
    gone,      ///< there is no such leaf any more; nothing changed
    refused,   ///< the leaf stays: an explicit huge page, or a device's with DeviceLeaf::keep
    no_memory, ///< the leaf stays: there is no memory for the table
};

/// What to do with a device's leaf when the caller wants smaller ones.
enum class DeviceLeaf : std::uint8_t {
    keep, ///< it has no information by page that a split could reveal
    unmap ///< the next access faults in a leaf that fits
};

/// Result of a zap.
struct Zapped {
    std::uint64_t leaves = 0; ///< removed
    std::uint64_t bytes = 0;  ///< that they mapped, also beyond the range
    std::uint64_t split = 0;  ///< leaves split at the range's ends
};

/// Why a cached translation is invalid.
enum class Change : std::uint8_t {
    unmapped,   ///< the address is not mapped any more
    replaced,   ///< it maps to other memory: RAM replaced the zero page
    protection, ///< it permits other accesses
    split,      ///< smaller leaves translate as before
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

    /// The entries of `request` have changed. When this returns, nothing may use the old
    /// translations; only then does the space reuse their memory. Runs with the lock of the block
    /// held, in a read section: it must not call the address space, nor take a lock under which
    /// other code calls it, nor wait for a grace period. A lock of its own is fine: the order is
    /// block, then notifier.
    virtual void invalidated(const InvalidationRequest<VirtualAddress>& request, Change change) = 0;

    /// The region is revoked: its leaves are gone, and faults fail. When this returns, nothing may
    /// use mappings derived from them, even if the leaves went earlier. Runs with only
    /// revokes_mutex held and in no read section: it may wait, and take locks under which others
    /// call the space, except to revoke or to change notifiers.
    virtual void revoked(DeviceRegion<Sync>& /*region*/) {}

  private:
    template <class>
    friend class NotifierList;

    typename Sync::template Atomic<Notifier*> next_{nullptr};
};

/// The owner changes it under one lock; notification takes none, only a read section.
template <class Sync>
class NotifierList {
  public:
    void add(Notifier<Sync>& notifier) {
        notifier.next_.store(first_.load(std::memory_order_relaxed), std::memory_order_relaxed);
        first_.store(&notifier, std::memory_order_release);
    }

    /// The caller waits for a grace period before it destroys the notifier.
    void remove(Notifier<Sync>& notifier) {
        auto* link = &first_;
        while (link->load(std::memory_order_relaxed) != &notifier)
            link = &link->load(std::memory_order_relaxed)->next_;
        link->store(notifier.next_.load(std::memory_order_relaxed), std::memory_order_release);
    }

    void notify(const InvalidationRequest<VirtualAddress>& request, Change change) const {
        const typename Sync::ReadSection section;
        for (Notifier<Sync>* each = first_.load(std::memory_order_acquire); each != nullptr;
             each = each->next_.load(std::memory_order_acquire))
            each->invalidated(request, change);
    }

    /// The caller prevents changes of the list.
    void notify_revoked(DeviceRegion<Sync>& region) const {
        for (Notifier<Sync>* each = first_.load(std::memory_order_acquire); each != nullptr;
             each = each->next_.load(std::memory_order_acquire))
            each->revoked(region);
    }

  private:
    typename Sync::template Atomic<Notifier<Sync>*> first_{nullptr};
};

} // namespace moat::mm
