// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// PageMapper: maps whole pages at addresses of the allocator. Every address of a space enters and
// leaves use here. tracker.hpp records who mapped what.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/function_ref.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"
#include "moat/iommu/domain.hpp"
#include "moat/iova/allocator.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace moat::dma {

/// Thread-safe. Sizes and addresses are bytes; pages around them are mapped whole.
template <iommu::Domain Domain, SyncPolicy Sync>
class PageMapper {
  public:
    using Allocator = iova::Allocator<Sync>;

    /// A live range that the calling thread is about to unmap.
    struct Claimed {
        typename Allocator::Claim claim;
        IovaRange pages;
    };

    /// Errors: Space::create's for the mask, deferred unmapping and the page size; no_memory.
    [[nodiscard]] static Result<PageMapper> create(Domain& domain, const SpaceConfig& config) {
        const iommu::DomainLimits limits = domain.limits();
        const Options& options = config.options;
        if (limits.aperture.start() > config.dma_mask)
            return fail(ErrorCode::out_of_range,
                        "the domain has no address below the device's mask",
                        {"dma_mask", config.dma_mask.value()},
                        {"aperture", limits.aperture.start().value()});
        const unsigned page_lg2 = alignment_lg2(limits.leaf_sizes);
        const std::array reachable = {IovaRange::inclusive(
            limits.aperture.start(), std::min(limits.aperture.last(), config.dma_mask))};
        iova::Config wanted = {.aperture = reachable,
                               .granule_lg2 = page_lg2,
                               .guard = {options.guard_before, options.guard}};
        if (options.quarantine != ByteCount(0))
            wanted.quarantine = {.bytes = options.quarantine, .entries = ~std::uint64_t{0}};
        if constexpr (iommu::DeferringDomain<Domain>)
            if (limits.defers)
                wanted.invalidation = {
                    [](void* context) { return static_cast<Domain*>(context)->invalidate_all(); },
                    &domain};
        auto allocator = Allocator::create(wanted);
        if (!allocator)
            return std::unexpected(allocator.error());
        for (const IovaRange& each : limits.reserved)
            if (const IovaRange inside = each.intersection(reachable[0]); !inside.empty())
                if (const auto reserved = (*allocator)->reserve(inside); !reserved)
                    return std::unexpected(reserved.error());
        return PageMapper(domain, options.unmapping, page_lg2, std::move(*allocator));
    }

    /// Before any other thread uses it. Calls `listener` for each range that is never used again
    /// because its invalidation failed.
    void set_held_listener(const iova::HeldListener& listener) {
        held_listener_ = listener;
        allocator_->set_held_listener(listener);
    }

    /// Ends the allocator, and with it the calls of the listener. Nothing is mapped afterwards.
    void close() { allocator_.reset(); }

    /// Return: the address of the first byte. Errors: empty, overflow, the allocator's and the
    /// domain's; nothing is mapped then.
    [[nodiscard, gnu::always_inline]] Result<Iova> map(PhysicalAddress physical, ByteCount size,
                                                       Attributes attributes) {
        const std::uint64_t offset = physical.value() & page_mask_;
        const ByteCount bytes(whole_pages(offset, size.value()));
        const Result<Iova> start = size.value() - 1 < large_bytes / 2
                                       ? allocator_->allocate({.size = bytes})
                                       : allocate_slowly(physical, size, bytes);
        if (!start) [[unlikely]]
            return start;
        const Result<void> mapped =
            domain_.map(*start, bytes, PhysicalAddress(physical.value() - offset), attributes);
        if (!mapped) [[unlikely]] {
            release_unmapped(*start, bytes, mapped.error());
            return std::unexpected(mapped.error());
        }
        return Iova(start->value() + offset);
    }

    /// The same at a multiple of the size, rounded up to a power of two; `memory` begins at a page.
    [[nodiscard]] Result<Iova> map_aligned(const Memory& memory, Attributes attributes) {
        if (const auto fits = check_size(memory.size()); !fits)
            return std::unexpected(fits.error());
        const ByteCount bytes(whole_pages(0, memory.bytes.size()));
        const Result<Iova> start =
            allocator_->allocate({.size = bytes, .placement = iova::Congruence::natural(bytes)});
        if (!start)
            return start;
        if (const auto mapped = domain_.map(*start, bytes, memory.physical, attributes); !mapped) {
            release_unmapped(*start, bytes, mapped.error());
            return std::unexpected(mapped.error());
        }
        return Iova(*start);
    }

    /// Undoes `map`. The allocator checks the range first: one that it does not know stays mapped.
    /// `common`: unmaps_commonly(size). Errors: Space::unmap's.
    [[gnu::always_inline]] Result<void> unmap(Iova iova, ByteCount size, bool common) {
        if (common) [[likely]] {
            const std::uint64_t offset = iova.value() & page_mask_;
            const ByteCount bytes(whole_pages(offset, size.value()));
            const Iova start(iova.value() - offset);
            if (const auto claim = allocator_->try_claim(start, bytes)) [[likely]] {
                const Result<void> done = domain_.unmap(start, bytes);
                if (done && allocator_->try_release(claim)) [[likely]]
                    return {};
                return finish_unmap({allocator_->claim_at(start), {start, bytes}}, done);
            }
        }
        return unmap_otherwise(iova, size);
    }

    [[gnu::always_inline]] Result<void> unmap(Iova iova, ByteCount size) {
        return unmap(iova, size, unmaps_commonly(size));
    }

    /// Whether a magazine may take the range at once. A caller that has a function for each case
    /// calls `unmap_otherwise` if not.
    [[nodiscard, gnu::always_inline]] bool unmaps_commonly(ByteCount size) const {
        return unmapping_ == Unmapping::strict && size.value() - 1 < large_bytes - 1;
    }

    /// For deferred unmaps, and for ranges of no magazine.
    [[gnu::noinline]] Result<void> unmap_otherwise(Iova iova, ByteCount size) {
        const std::uint64_t offset = iova.value() & page_mask_;
        const ByteCount bytes(whole_pages(offset, size.value()));
        const Iova start(iova.value() - offset);
        if (size.value() - 1 < most_bytes) [[likely]]
            if (const auto claim = allocator_->try_claim_any(start, bytes)) [[likely]] {
                const Result<void> done = unmap_as_chosen(start, bytes);
                if (done && (unmapping_ == Unmapping::strict ? allocator_->try_release_any(claim)
                                                             : allocator_->try_queue(claim)))
                    [[likely]]
                    return {};
                return finish_unmap({allocator_->claim_at(start), {start, bytes}}, done);
            }
        return unmap_slowly(iova, size);
    }

    /// The same, but strict in any space. Calls ended(bool unmapped) between the last access of a
    /// device and the address's reuse.
    [[gnu::noinline]] Result<void> unmap_strictly(Iova iova, ByteCount size,
                                                  FunctionRef<void(bool)> ended) {
        const std::uint64_t offset = iova.value() & page_mask_;
        const ByteCount bytes(whole_pages(offset, size.value()));
        const Iova start(iova.value() - offset);
        if (size.value() - 1 < large_bytes - 1) [[likely]]
            if (const auto claim = allocator_->try_claim(start, bytes)) [[likely]] {
                const Result<void> done = domain_.unmap(start, bytes);
                ended(done.has_value());
                if (done && allocator_->try_release(claim)) [[likely]]
                    return {};
                return finish_strictly({allocator_->claim_at(start), {start, bytes}}, done);
            }
        const Result<Claimed> claimed = claim(iova, size);
        if (!claimed)
            return std::unexpected(claimed.error());
        const Result<void> done = domain_.unmap(start, bytes);
        ended(done.has_value());
        return finish_strictly(*claimed, done);
    }

    /// The first half of `unmap`: no other thread can unmap the range. `finish_unmap` is the
    /// second.
    [[nodiscard]] Result<Claimed> claim(Iova iova, ByteCount size) {
        if (size == ByteCount(0))
            return fail(ErrorCode::empty, "the range is empty", {"iova", iova.value()});
        if (size.value() > most_bytes)
            return fail(ErrorCode::overflow, "the size exceeds the largest mapping",
                        {"iova", iova.value()}, {"size", size.value()});
        const std::uint64_t offset = iova.value() & page_mask_;
        const ByteCount bytes(whole_pages(offset, size.value()));
        const Iova start(iova.value() - offset); // may end past 2^64 unless it is claimed
        if (const auto claim = allocator_->try_claim_any(start, bytes))
            return Claimed{claim, {start, bytes}};
        const auto claim = allocator_->claim(start, bytes);
        if (!claim)
            return std::unexpected(claim.error());
        return Claimed{*claim, {start, bytes}};
    }

    /// Releases the range for reuse if `unmapped`, holds it after an io error, and makes it live
    /// again after any other. Errors: the unmap's, the release's.
    [[gnu::noinline]] Result<void> finish_unmap(const Claimed& claimed,
                                                const Result<void>& unmapped) {
        if (unmapped)
            return allocator_->release(claimed.claim, unmapping_ == Unmapping::strict
                                                          ? iova::When::now
                                                          : iova::When::after_invalidation);
        if (unmapped.error().code() == ErrorCode::io) {
            allocator_->hold(claimed.claim);
            report_held(claimed.pages);
        } else {
            allocator_->unclaim(claimed.claim);
        }
        return unmapped;
    }

    /// The same, whose invalidation was not deferred.
    [[gnu::noinline]] Result<void> finish_strictly(const Claimed& claimed,
                                                   const Result<void>& unmapped) {
        return unmapped ? allocator_->release(claimed.claim) : finish_unmap(claimed, unmapped);
    }

    /// Releases a range at `start` that was just allocated and not mapped because of `why`.
    [[gnu::noinline, gnu::cold]] void release_unmapped(Iova start, ByteCount bytes,
                                                       const Error& why) {
        const bool reachable = why.code() == ErrorCode::io;
        const auto released =
            reachable ? allocator_->hold(start, bytes) : allocator_->release(start, bytes);
        MOAT_CHECK(released.has_value(), "what was just allocated can be released");
        if (reachable)
            report_held({start, bytes});
    }

    /// Whether a mapping can have so many bytes. Errors: empty, overflow.
    [[nodiscard]] static Result<void> check_size(ByteCount size) {
        return size.value() - 1 < most_bytes ? Result<void>{} : cannot_map(size);
    }

    [[nodiscard]] std::uint64_t whole_pages(std::uint64_t offset, std::uint64_t size) const {
        return (offset + size + page_mask_) & ~page_mask_;
    }

    /// The pages of [iova, iova + size), which is mapped.
    [[nodiscard]] IovaRange pages_of(Iova iova, ByteCount size) const {
        const std::uint64_t offset = iova.value() & page_mask_;
        return {Iova(iova.value() - offset), ByteCount(whole_pages(offset, size.value()))};
    }

    [[nodiscard]] std::uint64_t page_mask() const { return page_mask_; }

    [[nodiscard]] Domain& domain() const { return domain_; }

    [[nodiscard]] Allocator& allocator() const { return *allocator_; }

  private:
    PageMapper(Domain& domain, Unmapping unmapping, unsigned page_lg2,
               typename Allocator::Owner allocator)
        : domain_(domain), unmapping_(unmapping), page_mask_(low_bits(page_lg2)),
          allocator_(std::move(allocator)) {}

    [[nodiscard, gnu::noinline, gnu::cold]] static std::unexpected<Error>
    cannot_map(ByteCount size) {
        if (size == ByteCount(0))
            return fail(ErrorCode::empty, "the memory is empty");
        return fail(ErrorCode::overflow, "the size exceeds the largest mapping",
                    {"size", size.value()});
    }

    /// For any size. From a large page on at the memory's offset in one, so that large leaves can
    /// map it.
    [[gnu::noinline]] Result<Iova> allocate_slowly(PhysicalAddress physical, ByteCount size,
                                                   ByteCount bytes) {
        if (const auto fits = check_size(size); !fits)
            return std::unexpected(fits.error());
        if (bytes.value() < large_bytes)
            return allocator_->allocate({.size = bytes});
        const PhysicalAddress first(physical.value() & ~page_mask_);
        return allocator_->allocate(
            {.size = bytes, .placement = iova::Congruence::with(first, large_lg2)});
    }

    /// For ranges that the thread's cache does not hold.
    [[gnu::noinline]] Result<void> unmap_slowly(Iova iova, ByteCount size) {
        const Result<Claimed> claimed = claim(iova, size);
        if (!claimed)
            return std::unexpected(claimed.error());
        return finish_unmap(*claimed,
                            unmap_as_chosen(claimed->pages.start(), claimed->pages.size()));
    }

    [[nodiscard, gnu::always_inline]] Result<void> unmap_as_chosen(Iova start, ByteCount bytes) {
        if constexpr (iommu::DeferringDomain<Domain>)
            if (unmapping_ == Unmapping::deferred)
                return domain_.unmap_deferred(start, bytes);
        return domain_.unmap(start, bytes);
    }

    void report_held(IovaRange range) { held_listener_.held(held_listener_.context, range); }

    static constexpr unsigned large_lg2 = 21;
    static constexpr std::uint64_t large_bytes = bit(large_lg2);
    /// Larger than any IOVA range; sizes up to it do not overflow in whole_pages.
    static constexpr std::uint64_t most_bytes = bit(62);

    Domain& domain_;
    const Unmapping unmapping_;
    const std::uint64_t page_mask_;
    typename Allocator::Owner allocator_;
    iova::HeldListener held_listener_{};
};

} // namespace moat::dma
