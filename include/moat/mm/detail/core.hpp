// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SpaceCore: the state of an address space, which its operations (fault.hpp, zap.hpp, ...) share.
// Only they and AddressSpace use it; address_space.hpp explains the protocol.
#pragma once

#include "moat/mm/change.hpp"
#include "moat/mm/detail/vma_tree.hpp"
#include "moat/mm/physical_memory.hpp"
#include "moat/page_table/edit.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <cstdint>

namespace moat::mm {

/// Choices that hold for all of an address space.
struct SpaceOptions {
    /// The node of memory for mappings that name none.
    unsigned home_node = 0;
    /// The number of times that an operation retries after another thread replaced its VMA, before
    /// it takes the lock of all VMAs.
    unsigned retries = 8;
    /// Attributes of every leaf in addition to the permissions of its VMA.
    Attributes leaf_attributes = Attributes::user;
    /// Whether anonymous memory that was never written to maps the huge zero page.
    enum class ZeroPage : std::uint8_t { share, none } zero_page = ZeroPage::share;
};

/// Locks by address: one for each of 2^CountLg2 neighbouring blocks, then the first again.
template <SyncPolicy Sync, unsigned BlockLg2, unsigned CountLg2>
class BlockLocks {
  public:
    using Mutex = typename Sync::Mutex;

    [[nodiscard]] Mutex& of(std::uint64_t address) {
        return stripes_[(address >> BlockLg2) & low_bits(CountLg2)].mutex;
    }

  private:
    struct alignas(128) Stripe {
        Mutex mutex;
    };

    std::array<Stripe, std::size_t{1} << CountLg2> stripes_;
};

/// The result of one look at an address in the tables: a leaf, or a hole in a table of `level`.
struct Spot {
    bool is_leaf = false;
    unsigned level = 0;
    LeafView leaf = {};
};

template <PageTableFormat F, SyncPolicy S, class M>
struct SpaceCore {
    static_assert(F::granule_lg2 == frame_lg2 && std::is_same_v<typename F::Input, VirtualAddress>,
                  "an address space is of a processor's format with 4 KiB pages");

    using Format = F;
    using Sync = S;
    using Memory = M;
    using Types = Tree<F, S, M>;
    using Tables = PageTable<Types>;
    using Attached = AttachedVma<S>;
    using Lock = ExclusiveLock<typename S::Mutex>;

    SpaceCore(M& physical, Tables&& page_tables, const SpaceOptions& chosen)
        : memory(physical), tables(std::move(page_tables)), options(chosen) {}

    /// Properties of a leaf of `vma`.
    [[nodiscard]] Attributes leaf_attributes(const Vma<S>& vma) const {
        Attributes attributes = vma.mapping.permissions | options.leaf_attributes;
        if (vma.is_special())
            attributes |= Attributes::special;
        return attributes;
    }

    [[nodiscard]] Spot look(VirtualAddress address) const {
        SpotFinder finder;
        const auto walked = tables.reader().walk(address, ByteCount(1), finder);
        MOAT_CHECK(walked.has_value(), "an address of a VMA can be translated");
        return finder.spot;
    }

    /// Calls `body(edit)`, then finishes the edit, which notifies of `change`. Return: of `body`.
    template <class Body>
    auto edit(Change change, Body&& body) {
        auto notifying = [&](const InvalidationRequest<VirtualAddress>& request) {
            notifiers.notify(request, change);
        };
        auto edit = tables.edit(notifying);
        const Finisher finisher{edit};
        return body(edit);
    }

    /// Errors: those of a range in the format's space, both ends multiples of 2^page_lg2.
    [[nodiscard]] static Result<void> check(VirtualRange range, unsigned page_lg2 = frame_lg2) {
        return check_range<F>(range.start().value(), range.size().value(), page_lg2,
                              F::most_levels);
    }

    /// The lock of the leaf of 2^leaf_lg2 bytes at `address`, or of its block.
    [[nodiscard]] typename S::Mutex& block_lock(VirtualAddress address, unsigned leaf_lg2) {
        return leaf_lg2 == pud_lg2 ? pud_locks.of(address.value()) : pmd_locks.of(address.value());
    }

    M& memory;
    Tables tables;
    const SpaceOptions options;
    /// Held to notify of a revocation, and to change the list of notifiers.
    typename S::Mutex revokes_mutex;
    /// Held to change VMAs, and by operations that have used up their retries.
    typename S::Mutex vmas_mutex;
    VmaTree<S> vmas;
    /// Guard the entries of level 2 (PUD), and those of levels 1 and 0.
    BlockLocks<S, pud_lg2, 4> pud_locks;
    BlockLocks<S, pmd_lg2, 6> pmd_locks;
    NotifierList<S> notifiers;

  private:
    struct Finisher {
        Edit<Types>& edit;

        ~Finisher() { edit.finish(); }
    };

    struct SpotFinder {
        Spot spot = {.level = F::most_levels - 1};

        template <unsigned L>
        void table(VirtualAddress, const Entry<Types, L>&) {
            spot.level = L - 1;
        }

        template <unsigned L>
        void leaf(VirtualAddress start, const Leaf<Types, L>& found) {
            spot = {.is_leaf = true,
                    .level = L,
                    .leaf = {start, found.physical(), found.size_lg2(), found.attributes()}};
        }
    };
};

} // namespace moat::mm
