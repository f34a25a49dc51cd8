// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Space: the DMA API. Memory is mapped for the devices of one domain, at addresses with guards
// around them; from level `track` on it is known whose they are. docs/life_of_a_mapping.md tells
// the way. What a scatter list is: scatter_list.hpp. What level `exact` does: exact_buffer.hpp.
#pragma once

#include "moat/core/check.hpp"
#include "moat/dma/detail/cpu_watch.hpp"
#include "moat/dma/detail/double_mappings.hpp"
#include "moat/dma/detail/edge.hpp"
#include "moat/dma/detail/exact_buffers.hpp"
#include "moat/dma/detail/sampling.hpp"
#include "moat/dma/detail/stack_depot.hpp"
#include "moat/dma/driver_error.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"
#include "moat/dma/poison.hpp"
#include "moat/dma/registry.hpp"
#include "moat/dma/scatter_list.hpp"
#include "moat/iommu/soft_domain.hpp"
#include "moat/iova/allocator.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace moat::dma {

/// Writes the callers' return addresses. Return: how many. platform/stack.hpp has one.
using CaptureStack = std::size_t (*)(std::span<std::uintptr_t> frames);

struct SpaceConfig {
    Options options = {};
    /// The last address that every device of the domain can send.
    Iova dma_mask{~std::uint64_t{0}};
    Listener listener = {};
    /// Needed where `options.stacks` is not 0. If set, sampled mappings and those that a memory
    /// checker watches have their stacks as well.
    CaptureStack capture = nullptr;
    /// Needed at level `exact` and for sampling: whole pages for small buffers. For in-process
    /// devices, a memory checker watches only mappings with such pages.
    PageSource pages = {};
};

/// A scatter list that is mapped.
struct MappedList {
    Iova start = {};                  ///< of its range: what `unmap` takes
    ByteCount size = {};              ///< of its range, whole pages: what `unmap` takes
    std::span<Segment> segments = {}; ///< for the device, in order, in the caller's memory
};

namespace detail {

template <class Domain>
struct BoundsOf {
    using Type = struct None {};
};

template <iommu::BoundedDomain Domain>
struct BoundsOf<Domain> {
    using Type = typename Domain::BoundsRegistration;
};

} // namespace detail

template <class Domain>
using BoundsOf = typename detail::BoundsOf<Domain>::Type;

/// Thread-safe: any thread may map, and unmap what another one mapped. Neither from inside an
/// access of a device. Ends after all of its mappings; at level `track` and `exact` what is left is
/// reported as a leak, and unmapped.
template <iommu::Domain Domain, SyncPolicy Sync>
class Space {
  public:
    /// `domain` has nothing mapped, and is mapped by nobody else. Errors: out_of_range (the mask
    /// leaves nothing of the aperture), unsupported (deferred unmapping of a domain that cannot;
    /// exact or sampling without pages; stacks without a way to take them; a page that is not 4K,
    /// 16K or 64K), busy (another space asks the domain for byte bounds), no_memory.
    [[nodiscard]] static Result<std::unique_ptr<Space>> create(Domain& domain,
                                                               const SpaceConfig& config = {});

    ~Space() {
        report_leaks();
        (void)flush();   // what it holds is reported
        bounds_.reset(); // it asks the registry
        cpu_watch::wait_for_calls(this);
        allocator_.reset(); // its timer reports to the registry, which ends after it
    }

    Space(const Space&) = delete;
    Space& operator=(const Space&) = delete;

    /// Maps `memory` (not empty) for `direction`. Whole pages become reachable; at level `exact`
    /// its bytes alone. `label` outlives the space: a literal, mostly.
    /// Return: the address of its first byte for the device.
    /// Errors: empty, no_space, no_memory, out_of_range (reported as `not_addressable`), and those
    /// of the domain; nothing is mapped then.
    [[nodiscard]] Result<Iova> map(const Memory& memory, Direction direction,
                                   std::string_view label = {}) {
        if (next_needs_care()) [[unlikely]]
            return map_with_care(memory, direction, label);
        return map_pages(memory.physical, memory.size(), attributes_of(direction));
    }

    /// Maps `pieces` into one range, in order, each on pages of its own. What the device is told is
    /// written to `segments`, which has room for as many as there are pieces; neighbours are told
    /// as one where `limits` allow, or, with a guard between them, each by itself: then from level
    /// `track` on each is told of by itself, too. `unmap` of the whole range undoes it. Whole pages
    /// are reachable, also at level `exact`, but for lists with guards. Errors: measure_list's, and
    /// map's; nothing is mapped then.
    [[nodiscard]] Result<MappedList> map_list(std::span<const Memory> pieces, Direction direction,
                                              std::span<Segment> segments,
                                              const SegmentLimits& limits = {},
                                              std::string_view label = {});

    /// Memory that driver and device share for long, at an address that is a multiple of its size
    /// (rounded up to a power of two), as rings want it. `memory` begins at a page; `unmap` of the
    /// same size, bidirectional, undoes it. Errors: map's; unaligned.
    [[nodiscard]] Result<Iova> map_coherent(const Memory& memory, std::string_view label = {});

    /// Peer to peer: maps whole pages of another device, a part of its BAR, uncached where the
    /// domain can say so. No memory of the CPU's is behind it: nothing is copied or checked.
    /// `unmap` of the same size and direction undoes it. Errors: map's; unaligned.
    [[nodiscard]] Result<Iova> map_region(PhysicalAddress region, ByteCount size,
                                          Direction direction, std::string_view label = {});

    /// Undoes `map` of the same size and direction. Strict: on return no device reaches the memory.
    /// Deferred: after `flush`; mappings that are watched to the byte are unmapped strictly. The
    /// memory then has what the device wrote, except bytes that the CPU changed after it took them
    /// by sync_for_cpu. Errors: empty, overflow, not_found, mismatch (reported from level
    /// `track` on); nothing is changed then. io: the invalidation failed, and the memory must be
    /// taken for reachable; the address is never used again (Stats::held), and `not_invalidated` is
    /// reported.
    Result<void> unmap(Iova iova, ByteCount size, Direction direction) {
        if (needs_care(iova)) [[unlikely]]
            return unmap_tracked(iova, size, direction);
        return unmap_pages(iova, size);
    }

    /// The device owns [iova + offset, + size) from the return on, and finds what the CPU wrote
    /// there; other bytes of the mapping are left alone. `iova` is what `map` returned. Reported
    /// as `missing_sync`: the device wrote there, and the CPU has taken no byte of the mapping
    /// since. Errors: not_found, out_of_range (reported as `outside`), no_memory; nothing is
    /// changed then.
    Result<void> sync_for_device(Iova iova, ByteCount offset, ByteCount size) {
        return needs_care(iova) ? sync(iova, offset, size, Owner::device) : Result<void>{};
    }

    /// The CPU owns [iova + offset, + size) from the return on, and finds what the device wrote
    /// there, except bytes that the CPU changed since it took them; other bytes of the mapping are
    /// left alone. The red zones are checked. Reported as `cpu_wrote`: the CPU wrote there while
    /// the device owned it. Errors: as sync_for_device.
    Result<void> sync_for_cpu(Iova iova, ByteCount offset, ByteCount size) {
        return needs_care(iova) ? sync(iova, offset, size, Owner::cpu) : Result<void>{};
    }

    /// Takes [start, start + size), bytes of one mapping that the caller keeps meanwhile, from the
    /// devices until `unpoison` or `unmap`; on return no device reaches them. For
    /// sub-allocators. Errors: unsupported (below level exact, and behind what knows only
    /// pages), empty, not_found (not inside one living mapping); nothing is changed then.
    Result<void> poison(Iova start, ByteCount size);

    /// Gives the devices back what is poisoned of the range. Errors: poison's.
    Result<void> unpoison(Iova start, ByteCount size);

    /// On return no device reaches what was unmapped before the call. Errors: io, after which all
    /// that waited must be taken for reachable: each range is reported as `not_invalidated` and
    /// never used again. The same is reported where a flush by the timer, or of a full queue,
    /// fails; the next flush invalidates again.
    Result<void> flush() { return allocator_->flush(); }

    /// Reports each living mapping to the listener as a leak, and leaves it as it is: for a driver
    /// that ends before its space. From level `track` on; sampled mappings otherwise.
    void report_living() {
        registry_.for_each([&](const Registered& each) {
            report({.kind = DriverErrorKind::leak,
                    .range = each.mapping.range,
                    .mapping = each.mapping});
        });
    }

    /// Reports what the IOMMU recorded to the listener, with the mapping that is affected. At level
    /// `guard` none is known. Return: the diagnosis, whose labels and stacks live as long as the
    /// space.
    fault::Diagnosis fault(const fault::Record& record) {
        const fault::Diagnosis diagnosis = registry_.diagnose(record, diagnose_options());
        if (listener_.fault != nullptr)
            listener_.fault(listener_.context, diagnosis);
        return diagnosis;
    }

    /// `fault`, for an IOMMU in software to call.
    [[nodiscard]] iommu::FaultHandler fault_handler() {
        return {[](void* context, const fault::Record& record) {
                    static_cast<Space*>(context)->fault(record);
                },
                this};
    }

    /// How many of the bytes from `start` on lie in one mapping and are not poisoned: for an IOMMU
    /// in software to ask (iommu::ByteBounds). From level `track` on.
    [[nodiscard]] ByteCount bytes_inside(Iova start, ByteCount size) const {
        const auto found = registry_.at_or_below(start);
        if (!found || !found->range.contains(start))
            return {};
        const std::uint64_t left = found->range.last().value() - start.value() + 1;
        return poison_.clear_from(start, left < size.value() ? ByteCount(left) : size);
    }

    /// As they are in effect.
    [[nodiscard]] const Options& options() const { return options_; }

    [[nodiscard]] Domain& domain() { return domain_; }

    [[nodiscard]] iova::Stats stats() { return allocator_->stats(); }

  private:
    using Allocator = iova::Allocator<Sync>;
    using Buffer = ExactBuffer<Sync>;
    using BufferPointer = std::shared_ptr<Buffer>;

    /// What happens to a mapping.
    enum class Care : std::uint8_t {
        guard,  ///< pages are mapped and unmapped
        sample, ///< the same, except a few that are watched to the byte
        track,  ///< each is registered
    };

    enum class Owner : std::uint8_t { device, cpu };

    Space(Domain& domain, const SpaceConfig& config, unsigned page_lg2,
          typename Allocator::Owner allocator, std::unique_ptr<Sampling<Sync>> sampling);

    [[nodiscard]] static Result<void> check_config(const iommu::DomainLimits& limits,
                                                   const SpaceConfig& config);
    [[nodiscard]] static Result<typename Allocator::Owner>
    create_allocator(Domain& domain, const SpaceConfig& config, unsigned page_lg2);
    [[nodiscard]] Result<void> register_bounds();

    /// What is compared and copied back must be at rest, so level exact unmaps strictly.
    [[nodiscard]] static Options effective(Options options) {
        if (options.level == Level::exact)
            options.unmapping = Unmapping::strict;
        return options;
    }

    [[nodiscard]] static Care care_of(const Options& options) {
        return options.sample != 0             ? Care::sample
               : options.level == Level::guard ? Care::guard
                                               : Care::track;
    }

    [[nodiscard]] bool tracks() const { return care_ == Care::track; }

    /// Whether the next mapping is tracked or sampled.
    [[nodiscard, gnu::always_inline]] bool next_needs_care() const {
        return care_ != Care::guard && (care_ == Care::track || sampling_->next_is_sampled());
    }

    [[nodiscard, gnu::always_inline]] bool needs_care(Iova iova) {
        return care_ != Care::guard && (care_ == Care::track || is_sampled(iova));
    }

    /// Of a mapping that is tracked or sampled.
    [[nodiscard]] bool to_the_byte() const { return options_.level == Level::exact || sampling_; }

    /// Whether mappings have an ExactBuffer.
    [[nodiscard]] bool watches_buffers() const { return to_the_byte() || watch_ != CpuWatch::off; }

    [[nodiscard]] std::uint64_t whole_pages(std::uint64_t offset, std::uint64_t size) const {
        return (offset + size + page_mask_) & ~page_mask_;
    }

    [[nodiscard, gnu::always_inline]] Result<Iova>
    map_pages(PhysicalAddress physical, ByteCount size, Attributes attributes) {
        const std::uint64_t offset = physical.value() & page_mask_;
        const ByteCount bytes(whole_pages(offset, size.value()));
        if (size.value() - 1 >= most_bytes) [[unlikely]]
            return cannot_map(size);
        const Result<Iova> start = bytes.value() < large_bytes
                                       ? allocator_->allocate({.size = bytes})
                                       : allocate_large(physical, bytes);
        if (!start) [[unlikely]]
            return start;
        const Result<void> mapped =
            domain_.map(*start, bytes, PhysicalAddress(physical.value() - offset), attributes);
        if (!mapped) [[unlikely]] {
            give_back(*start, bytes, mapped.error());
            return std::unexpected(mapped.error());
        }
        return Iova(start->value() + offset);
    }

    [[nodiscard, gnu::noinline, gnu::cold]] static std::unexpected<Error>
    cannot_map(ByteCount size) {
        if (size == ByteCount(0))
            return fail(ErrorCode::empty, "there is nothing to map");
        return fail(ErrorCode::overflow, "no mapping has so many bytes", {"size", size.value()});
    }

    /// At the same offset in a large page as the memory, so that large leaves can map it.
    [[gnu::noinline]] Result<Iova> allocate_large(PhysicalAddress physical, ByteCount bytes) {
        const PhysicalAddress first(physical.value() & ~page_mask_);
        return allocator_->allocate(
            {.size = bytes, .placement = iova::Congruence::with(first, large_lg2)});
    }

    /// The allocator checks the range first: what it does not know as one range stays mapped.
    [[gnu::always_inline]] Result<void> unmap_pages(Iova iova, ByteCount size) {
        const std::uint64_t offset = iova.value() & page_mask_;
        const ByteCount bytes(whole_pages(offset, size.value()));
        const Iova start(iova.value() - offset);
        if (options_.unmapping == Unmapping::strict && size.value() - 1 < large_bytes) [[likely]]
            if (const auto claim = allocator_->try_claim(start, bytes)) [[likely]] {
                const Result<void> done = domain_.unmap(start, bytes);
                if (done && allocator_->try_release(claim)) [[likely]]
                    return {};
                return finish_unmap(allocator_->claim_at(start), {start, bytes}, done);
            }
        return unmap_slowly(iova, size);
    }

    [[gnu::noinline]] Result<void> unmap_slowly(Iova iova, ByteCount size);
    [[gnu::noinline]] Result<void> finish_unmap(const typename Allocator::Claim& claim,
                                                IovaRange range, const Result<void>& unmapped);
    void report_held(IovaRange range);

    [[nodiscard]] Result<std::span<Segment>> map_list_at(Iova start, std::span<const Memory> pieces,
                                                         Direction direction,
                                                         std::span<Segment> segments,
                                                         const SegmentLimits& limits);
    [[nodiscard]] std::span<const iommu::Piece> next_runs(Iova start,
                                                          std::span<const Memory>& pieces,
                                                          ListLayout& layout, SegmentWriter& writer,
                                                          std::span<iommu::Piece> room) const;
    [[nodiscard]] Result<void> note_list(const MappedList& list, Direction direction,
                                         std::string_view label);
    [[nodiscard]] Result<void> note_parts(const MappedList& list, Direction direction,
                                          const SegmentLimits& limits, std::string_view label);
    void forget_parts(IovaRange list);

    /// Releases a new range that could not be mapped because of `why`.
    [[gnu::noinline, gnu::cold]] void give_back(Iova start, ByteCount bytes, const Error& why) {
        const bool reachable = why.code() == ErrorCode::io;
        const auto released =
            reachable ? allocator_->hold(start, bytes) : allocator_->release(start, bytes);
        MOAT_CHECK(released.has_value(), "what was just allocated can be released");
        if (reachable)
            report_held({start, bytes});
    }

    [[gnu::noinline]] Result<Iova> map_with_care(const Memory& memory, Direction direction,
                                                 std::string_view label);
    [[gnu::noinline]] Result<void> unmap_tracked(Iova iova, ByteCount size, Direction direction);
    [[nodiscard]] Result<Iova> map_tracked(const Memory& memory, Direction direction,
                                           std::string_view label);
    [[nodiscard]] Result<void> forget(Iova iova, ByteCount size, Direction direction,
                                      std::optional<fault::Mapping>& was);
    [[gnu::noinline]] Result<void> sync(Iova iova, ByteCount offset, ByteCount size, Owner next);
    [[nodiscard]] fault::Mapping describe(IovaRange range, Direction direction,
                                          std::string_view label, const fault::Event& mapped) const;

    [[gnu::noinline]] Result<Iova> map_watched(const Memory& memory, Direction direction,
                                               std::string_view label);
    [[gnu::noinline]] Result<void> unmap_watched(Iova iova, ByteCount size,
                                                 const std::optional<fault::Mapping>& was);
    [[nodiscard]] Result<void> check_addressable(const Memory& memory, std::string_view label);
    [[nodiscard]] Result<BufferPointer> buffer_for(const Memory& memory, Direction direction);
    [[nodiscard]] Result<Memory> at_an_edge(const Memory& memory);
    void release_pages(const Memory& bounce);
    [[nodiscard]] Result<Iova> map_sampled_pages(const Memory& memory, Direction direction);
    [[nodiscard]] Result<void> note_watched(Iova iova, const BufferPointer& buffer,
                                            const fault::Mapping& mapping, Direction direction);

    [[nodiscard]] bool is_sampled(Iova iova) {
        return sampling_->may_be_sampled(iova) && buffers_.find(iova) != nullptr;
    }

    [[nodiscard]] Result<void> release_watched(const typename Allocator::Claim& claim,
                                               IovaRange pages);
    void look_for_double_mapping(const fault::Mapping& mapping, std::span<const Memory> pieces,
                                 Direction direction);
    void memory_freed(Iova iova, const HeapBlock& block) noexcept;
    [[nodiscard]] Result<IovaRange> range_to_poison(Iova start, ByteCount size) const;

    [[nodiscard, gnu::always_inline]] fault::Event now_by_whom() {
        return options_.stacks == 0 ? fault::Event{} : every_so_often();
    }

    [[nodiscard, gnu::noinline]] fault::Event every_so_often();
    [[nodiscard]] fault::Event now_with_stack();

    /// Mappings that are not registered lie between sampled ones, so distance is no evidence.
    [[nodiscard]] fault::DiagnoseOptions diagnose_options() const {
        return sampling_ ? fault::DiagnoseOptions{.reach = {}} : fault::DiagnoseOptions{};
    }

    void report(const DriverError& error) const {
        if (listener_.driver_error != nullptr)
            listener_.driver_error(listener_.context, error);
    }

    void report(const BufferFindings& found, const fault::Mapping& mapping) const;
    std::unexpected<Error> report_misuse(DriverErrorKind kind, Iova iova, ByteCount size,
                                         const fault::Mapping* found);
    void report_leaks();

    /// A device may want its buffers aligned; no more than to this is kept when one is moved.
    static constexpr unsigned edge_alignment_lg2 = 6;
    static constexpr unsigned large_lg2 = 21;
    static constexpr std::uint64_t large_bytes = bit(large_lg2);
    /// No IOVA range is as large, and none of up to this many bytes overflows in whole_pages.
    static constexpr std::uint64_t most_bytes = bit(62);

    Domain& domain_;
    const Options options_;
    const Care care_;
    const CpuWatch watch_;
    const Listener listener_;
    const CaptureStack capture_;
    const PageSource pages_;
    const std::uint64_t page_mask_;
    typename Allocator::Owner allocator_;
    const std::unique_ptr<Sampling<Sync>> sampling_; ///< where options ask for it
    Registry<Sync> registry_;
    /// The ranges of lists whose parts `registry_` has.
    Registry<Sync> guarded_lists_{1};
    ExactBuffers<Sync> buffers_;
    DoubleMappings<Sync> double_mappings_;
    StackDepot<Sync> stacks_;
    Poison<Sync> poison_;
    typename Sync::template Atomic<std::uint64_t> events_{0};
    /// At level exact, of a domain that can ask.
    std::optional<BoundsOf<Domain>> bounds_;
};

} // namespace moat::dma

#include "moat/dma/detail/space_list.hpp"
#include "moat/dma/detail/space_tracked.hpp"
#include "moat/dma/detail/space_watched.hpp"
