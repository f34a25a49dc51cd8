// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// BufferWatch: mappings that are watched to the byte: at level exact, sampled, or by a memory
// checker in the process. exact_buffer.hpp finds the wrong bytes; this maps, unmaps and reports.
#pragma once

#include "moat/dma/detail/bounce_pages.hpp"
#include "moat/dma/detail/cpu_watch.hpp"
#include "moat/dma/detail/exact_buffers.hpp"
#include "moat/dma/detail/page_mapper.hpp"
#include "moat/dma/detail/sampling.hpp"
#include "moat/dma/detail/tracker.hpp"

#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

namespace moat::dma {

/// Who may access a buffer until the next sync.
enum class Owner : std::uint8_t { device, cpu };

/// Thread-safe.
template <iommu::Domain Domain, SyncPolicy Sync>
class BufferWatch {
  public:
    BufferWatch(const SpaceConfig& config, Tracker<Sync>& tracker, PageMapper<Domain, Sync>& pages)
        : tracker_(tracker), pages_(pages), bounces_(config.pages, pages.page_mask() + 1),
          placement_(config.options.placement),
          to_the_byte_(config.options.level == Level::exact || config.options.sample != 0),
          checker_(checker_of(config.options)), chance_(config.options.sample),
          sampling_(config.options.sample == 0 ? nullptr : std::make_unique<Sampling<Sync>>()) {}

    BufferWatch(const BufferWatch&) = delete;
    BufferWatch& operator=(const BufferWatch&) = delete;

    ~BufferWatch() { cpu_watch::wait_for_calls(this); }

    /// Whether mappings of a level that tracks go through `map` and `unmap` here.
    [[nodiscard]] static bool watches(const Options& options) {
        return options.level == Level::exact || checker_of(options) != CpuWatch::off;
    }

    /// Whether to sample the next mapping. Only where the options ask for sampling.
    [[nodiscard, gnu::always_inline]] bool samples_next() const { return chance_.next(); }

    [[nodiscard, gnu::always_inline]] bool is_sampled(Iova iova) {
        return sampling_->may_be_sampled(iova) && tracker_.find(iova).has_value();
    }

    /// Maps and tracks `memory`. Errors: Space::map's; nothing is mapped then.
    /// Every step that can fail comes before the first that others can see.
    [[nodiscard]] Result<Iova> map(const Memory& memory, Direction direction,
                                   std::string_view label) {
        if (const auto fits = pages_.check_size(memory.size()); !fits) [[unlikely]]
            return std::unexpected(fits.error());
        if (checker_ != CpuWatch::off)
            if (const auto addressable = check_addressable(memory, label); !addressable)
                return std::unexpected(addressable.error());
        const bool bounced = is_bounced(memory, direction);
        Buffer* const buffer = buffer_for(memory, direction, bounced);
        if (buffer == nullptr) [[unlikely]]
            return fail(ErrorCode::no_memory, "no memory to watch a buffer",
                        {"size", memory.bytes.size()});
        const Result<Iova> iova = map_pages(bounced ? buffer->pages().buffer() : memory, direction);
        if (!iova) [[unlikely]] {
            buffer->cancel();
            put(*buffer, true);
            return iova;
        }
        if (const auto added = add(*buffer, *iova, direction, label); !added) [[unlikely]] {
            buffer->cancel();
            buffer->pages().distrust();
            put(*buffer, pages_.unmap(*iova, memory.size()).has_value());
            return std::unexpected(added.error());
        }
        return *iova;
    }

    /// Unmaps what the tracker has removed, and was `was`; lists with guards have no `was`. Strict
    /// for buffers. Errors: Space::unmap's.
    [[nodiscard]] Result<void> unmap(Iova iova, ByteCount size, const PackedMapping& was) {
        Buffer* const buffer = buffer_of(was);
        if (buffer == nullptr)
            return pages_.unmap(iova, size);
        if (checker_ != CpuWatch::off)
            cpu_watch::unregister_mapping(buffer->memory().bytes, this, iova);
        BufferFindings found;
        const auto ended = [&](bool unmapped) {
            found = buffer->end();
            put(*buffer, unmapped);
        };
        const Result<void> done = sampling_ == nullptr ? pages_.unmap_strictly(iova, size, ended)
                                                       : unmap_sampled(iova, size, ended);
        if (found.any()) [[unlikely]]
            report(found, tracker_.unpack(was, iova));
        return done;
    }

    /// What watches the mapping's bytes, or null.
    [[nodiscard]] static ExactBuffer<Sync>* buffer_of(const PackedMapping& mapping) {
        return static_cast<ExactBuffer<Sync>*>(mapping.watched());
    }

    /// Makes `next` the owner of [offset, offset + size) of a mapping. Errors: no_memory.
    [[nodiscard]] Result<void> hand_over(const Registered& mapped, ByteCount offset, ByteCount size,
                                         Owner next) {
        auto* const buffer = static_cast<Buffer*>(mapped.watched);
        if (buffer == nullptr || size == ByteCount(0))
            return {}; // the device and the CPU access the same bytes
        const Iova iova = mapped.mapping.range.start();
        const auto found = next == Owner::cpu ? buffer->take(iova, offset.value(), size.value())
                                              : buffer->give(iova, offset.value(), size.value());
        if (!found)
            return std::unexpected(found.error());
        report(*found, mapped.mapping);
        return {};
    }

  private:
    using Buffer = ExactBuffer<Sync>;

    [[nodiscard]] static CpuWatch checker_of(const Options& options) {
        const bool tracks = options.sample == 0 && options.level != Level::guard;
        return tracks && cpu_watch::present() ? options.cpu : CpuWatch::off;
    }

    [[nodiscard]] Result<void> check_addressable(const Memory& memory,
                                                 std::string_view label) const {
        const auto bad = cpu_watch::find_inaddressable(memory.bytes);
        if (!bad)
            return {};
        DriverError error = {.kind = DriverErrorKind::not_addressable};
        error.mapping.label = label;
        error.memory = memory.bytes;
        error.block = bad->block;
        tracker_.report(error);
        return fail(ErrorCode::out_of_range, "part of the memory is not addressable",
                    {"memory", reinterpret_cast<std::uintptr_t>(memory.bytes.data())},
                    {"size", memory.bytes.size()}, {"first", bad->first},
                    {"block_size", bad->block.size.value()});
    }

    /// A small buffer gets bounce pages. So does a buffer of any size that the checker forbids the
    /// CPU while in-process devices write it.
    [[nodiscard]] bool is_bounced(const Memory& memory, Direction direction) {
        if (to_the_byte_ && memory.bytes.size() <= pages_.page_mask() + 1)
            return true;
        return checker_ != CpuWatch::off && direction != Direction::to_device && in_process() &&
               bounces_.available();
    }

    [[nodiscard]] bool in_process() const { return pages_.domain().limits().in_process; }

    /// A buffer that is prepared for `memory`. Return: null without memory.
    [[nodiscard]] Buffer* buffer_for(const Memory& memory, Direction direction, bool bounced) {
        const bool single = bounced && memory.bytes.size() <= pages_.page_mask() + 1;
        Buffer* const buffer = buffers_.take(single);
        if (buffer == nullptr) [[unlikely]]
            return nullptr;
        BouncedPages& pages = buffer->pages();
        if (bounced && pages.empty())
            pages = bounces_.allocate(memory.size());
        CpuWatch watch = CpuWatch::off;
        if (checker_ != CpuWatch::off) {
            cpu_watch::allow(checker_, memory.bytes); // another mapping may forbid it
            if (bounced || !in_process())
                watch = checker_;
        }
        if (!bounced || !pages.empty()) [[likely]] {
            const bool left = sampling_ && (sample_random::next() >> 63) != 0;
            if (bounced)
                pages.place(memory, left ? Placement::left : placement_);
            if (buffer->prepare(memory, bounced, direction, watch)) [[likely]]
                return buffer;
        }
        put(*buffer, true);
        return nullptr;
    }

    /// Ends the use of a buffer. Its pages serve the next one, unless a device may still reach them
    /// since they were not `unmapped`.
    void put(Buffer& buffer, bool unmapped) {
        BouncedPages& pages = buffer.pages();
        if (!unmapped) [[unlikely]]
            bounces_.keep_for_good(std::exchange(pages, {}));
        else if (pages.all().bytes.size() > pages_.page_mask() + 1) [[unlikely]]
            bounces_.release(std::exchange(pages, {}));
        buffers_.put(buffer);
    }

    /// Takes addresses out of the samples' quarantine while the space is full.
    [[nodiscard]] Result<Iova> map_pages(const Memory& memory, Direction direction) {
        for (;;) {
            const Result<Iova> iova =
                pages_.map(memory.physical, memory.size(), attributes_of(direction));
            if (iova) [[likely]]
                return *iova;
            if (iova.error().code() != ErrorCode::no_space || !sampling_)
                return iova;
            const auto oldest = sampling_->release_oldest();
            if (!oldest)
                return iova;
            if (const auto released = release_quarantined(*oldest); !released)
                return std::unexpected(released.error());
        }
    }

    /// Adds the mapping to the tracker and the checker. Errors: no_memory.
    [[nodiscard]] Result<void> add(Buffer& buffer, Iova iova, Direction direction,
                                   std::string_view label) {
        const bool with_stack = sampling_ || checker_ != CpuWatch::off;
        const fault::Event mapped = with_stack ? tracker_.event_with_stack() : tracker_.event();
        buffer.begin(iova);
        const ByteCount size = buffer.memory().size();
        if (auto added = tracker_.add(iova, size, direction, label, mapped, &buffer); !added)
            [[unlikely]] {
            (void)buffer.end();
            return added;
        }
        if (sampling_)
            sampling_->note_begin(iova);
        if (checker_ == CpuWatch::off)
            return {};
        try {
            cpu_watch::register_mapping(
                {.memory = buffer.memory().bytes,
                 .iova = iova,
                 .label = label,
                 .device_writes = direction != Direction::to_device,
                 .freed =
                     [](const cpu_watch::WatchedMapping& freed, const HeapBlock& block) noexcept {
                         static_cast<BufferWatch*>(freed.context)->memory_freed(freed, block);
                     },
                 .context = this,
                 .buffer = &buffer});
        } catch (const std::bad_alloc&) { // the mapping is watched a little less
        }
        return {};
    }

    /// The range stays claimed in the quarantine, so that no thread can release it.
    template <class Ended>
    [[nodiscard, gnu::noinline]] Result<void> unmap_sampled(Iova iova, ByteCount size,
                                                            const Ended& ended) {
        const auto claimed = pages_.claim(iova, size);
        if (!claimed)
            return std::unexpected(claimed.error());
        const Result<void> unmapped =
            pages_.domain().unmap(claimed->pages.start(), claimed->pages.size());
        ended(unmapped.has_value());
        sampling_->note_end(iova);
        if (!unmapped)
            return pages_.finish_unmap(*claimed, unmapped);
        const auto oldest = sampling_->quarantine(claimed->pages);
        return oldest ? release_quarantined(*oldest) : Result<void>{};
    }

    [[nodiscard]] Result<void> release_quarantined(IovaRange pages) {
        return pages_.allocator().release(pages_.allocator().claim_at(pages.start()));
    }

    /// The driver's later unmap still finds the mapping; the domain has nothing left to unmap then.
    void memory_freed(const cpu_watch::WatchedMapping& freed, const HeapBlock& block) noexcept {
        const Iova iova = freed.iova;
        static_cast<Buffer*>(freed.buffer)->abandon(iova);
        const auto mapping = tracker_.deny_all(iova);
        if (!mapping)
            return;
        DriverError error = {.kind = DriverErrorKind::freed,
                             .range = mapping->range,
                             .mapping = *mapping,
                             .block = block,
                             .memory = freed.memory};
        const IovaRange pages = pages_.pages_of(iova, mapping->range.size());
        if (!pages_.domain().unmap(pages.start(), pages.size()))
            tracker_.report({.kind = DriverErrorKind::not_invalidated,
                             .range = mapping->range,
                             .mapping = *mapping});
        error.when = tracker_.event_with_stack();
        tracker_.report(error);
    }

    void report(const BufferFindings& found, const fault::Mapping& mapping) const {
        const auto each = [&](DriverErrorKind kind, const std::optional<FoundBytes>& bytes) {
            if (bytes)
                tracker_.report(
                    {.kind = kind, .range = bytes->at(mapping.range.start()), .mapping = mapping});
        };
        each(DriverErrorKind::cpu_wrote, found.cpu_wrote);
        each(DriverErrorKind::missing_sync, found.missing_sync);
        each(DriverErrorKind::red_zone, found.red_zone);
    }

    Tracker<Sync>& tracker_;
    PageMapper<Domain, Sync>& pages_;
    BouncePages bounces_;
    const Placement placement_;
    const bool to_the_byte_; ///< mappings that are tracked or sampled
    const CpuWatch checker_;
    const SampleChance<Sync> chance_;
    const std::unique_ptr<Sampling<Sync>> sampling_; ///< null without sampling
    ExactBuffers<Sync> buffers_;
};

} // namespace moat::dma
