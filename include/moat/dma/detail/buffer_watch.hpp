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
          checker_(checker_of(config.options)),
          sampling_(config.options.sample == 0
                        ? nullptr
                        : std::make_unique<Sampling<Sync>>(config.options.sample)) {}

    BufferWatch(const BufferWatch&) = delete;
    BufferWatch& operator=(const BufferWatch&) = delete;

    ~BufferWatch() { cpu_watch::wait_for_calls(this); }

    /// Whether tracked mappings go through `map` and `unmap` here.
    [[nodiscard]] bool enabled() const { return to_the_byte_ || checker_ != CpuWatch::off; }

    /// Whether to sample the next mapping. Only where the options ask for sampling.
    [[nodiscard, gnu::always_inline]] bool samples_next() const {
        return sampling_->next_is_sampled();
    }

    [[nodiscard, gnu::always_inline]] bool is_sampled(Iova iova) {
        return sampling_->may_be_sampled(iova) && buffers_.find(iova) != nullptr;
    }

    /// Maps and tracks `memory`. Errors: Space::map's; nothing is mapped then.
    /// Every step that can fail comes before the first that others can see.
    [[nodiscard]] Result<Iova> map(const Memory& memory, Direction direction,
                                   std::string_view label) {
        if (const auto fits = pages_.check_size(memory.size()); !fits)
            return std::unexpected(fits.error());
        if (const auto addressable = check_addressable(memory, label); !addressable)
            return std::unexpected(addressable.error());
        const Result<BufferPointer> buffer = buffer_for(memory, direction);
        if (!buffer)
            return std::unexpected(buffer.error());
        const Memory bounce = (*buffer)->bounce();
        const Result<Iova> iova = map_pages(bounce.bytes.empty() ? memory : bounce, direction);
        if (!iova) {
            bounces_.release(bounce);
            return iova;
        }
        const bool with_stack = sampling_ || checker_ != CpuWatch::off;
        const fault::Event mapped = with_stack ? tracker_.event_with_stack() : tracker_.event();
        if (const auto added = add(*buffer, *iova, direction, label, mapped); !added) {
            end_bounce(bounce, pages_.unmap(*iova, memory.size()).has_value(), RedZones::unknown);
            return std::unexpected(added.error());
        }
        return iova;
    }

    /// Unmaps what the tracker has removed, and was `was`; lists with guards have no `was`. Strict
    /// for buffers. Errors: Space::unmap's.
    [[nodiscard]] Result<void> unmap(Iova iova, ByteCount size,
                                     const std::optional<fault::Mapping>& was) {
        const BufferPointer buffer = buffers_.remove(iova);
        if (buffer == nullptr && !to_the_byte_)
            return pages_.unmap(iova, size);
        if (buffer != nullptr)
            cpu_watch::unregister_mapping(buffer->memory(), this, iova);
        const auto claimed = pages_.claim(iova, size);
        if (!claimed)
            return std::unexpected(claimed.error());
        const Result<void> unmapped =
            pages_.domain().unmap(claimed->pages.start(), claimed->pages.size());
        BufferFindings found;
        if (buffer != nullptr) {
            found = buffer->end();
            end_bounce(buffer->bounce(), unmapped.has_value(), RedZones::intact);
        }
        if (sampling_)
            sampling_->note_end(iova);
        const Result<void> done =
            unmapped ? release(*claimed) : pages_.finish_unmap(*claimed, unmapped);
        if (was)
            report(found, *was);
        return done;
    }

    /// Makes `next` the owner of [offset, offset + size) of `mapping`. Errors: no_memory.
    [[nodiscard]] Result<void> hand_over(const fault::Mapping& mapping, ByteCount offset,
                                         ByteCount size, Owner next) {
        const BufferPointer buffer = buffers_.find(mapping.range.start());
        if (buffer == nullptr || size == ByteCount(0))
            return {}; // the device and the CPU access the same bytes
        const auto found = next == Owner::cpu ? buffer->take(offset.value(), size.value())
                                              : buffer->give(offset.value(), size.value());
        if (!found)
            return std::unexpected(found.error());
        report(*found, mapping);
        return {};
    }

  private:
    using Buffer = ExactBuffer<Sync>;
    using BufferPointer = std::shared_ptr<Buffer>;

    [[nodiscard]] static CpuWatch checker_of(const Options& options) {
        const bool tracks = options.sample == 0 && options.level != Level::guard;
        return tracks && cpu_watch::present() ? options.cpu : CpuWatch::off;
    }

    [[nodiscard]] Result<void> check_addressable(const Memory& memory,
                                                 std::string_view label) const {
        if (checker_ == CpuWatch::off)
            return {};
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
    [[nodiscard]] Result<BufferPointer> buffer_for(const Memory& memory, Direction direction) {
        const std::uint64_t page_bytes = pages_.page_mask() + 1;
        const bool small = memory.size() <= ByteCount(page_bytes);
        const bool in_process = pages_.domain().limits().in_process;
        const bool forbidden = checker_ != CpuWatch::off && direction != Direction::to_device;
        Memory bounce;
        if ((to_the_byte_ && small) || (forbidden && in_process && bounces_.available())) {
            const bool left = sampling_ && (sample_random::next() >> 63) != 0;
            const Result<Memory> pages =
                bounces_.allocate(memory, left ? Placement::left : placement_);
            if (!pages)
                return std::unexpected(pages.error());
            bounce = *pages;
        }
        cpu_watch::allow(checker_, memory.bytes); // another mapping may forbid it
        const bool device_is_cpu = in_process && bounce.bytes.empty();
        auto buffer = Buffer::create(memory, bounce, direction, page_bytes,
                                     device_is_cpu ? CpuWatch::off : checker_);
        if (buffer == nullptr) {
            bounces_.release(bounce);
            return fail(ErrorCode::no_memory, "no memory to watch a buffer",
                        {"size", memory.bytes.size()});
        }
        return buffer;
    }

    /// Takes addresses out of the samples' quarantine while the space is full.
    [[nodiscard]] Result<Iova> map_pages(const Memory& memory, Direction direction) {
        const Attributes attributes = attributes_of(direction);
        Result<Iova> iova = pages_.map(memory.physical, memory.size(), attributes);
        while (!iova && iova.error().code() == ErrorCode::no_space && sampling_) {
            const auto oldest = sampling_->release_oldest();
            if (!oldest)
                break;
            if (const auto released = release_quarantined(*oldest); !released)
                return std::unexpected(released.error());
            iova = pages_.map(memory.physical, memory.size(), attributes);
        }
        return iova;
    }

    /// Adds the mapping to every index, or to none.
    [[nodiscard]] Result<void> add(const BufferPointer& buffer, Iova iova, Direction direction,
                                   std::string_view label, const fault::Event& mapped) {
        const ByteCount size(buffer->memory().size());
        if (!buffers_.add(iova, buffer))
            return fail(ErrorCode::no_memory, "no memory to record a mapping",
                        {"iova", iova.value()});
        if (const auto added = tracker_.add(iova, size, direction, label, mapped); !added) {
            (void)buffers_.remove(iova);
            return added;
        }
        if (sampling_)
            sampling_->note_begin(iova);
        if (checker_ == CpuWatch::off)
            return {};
        try {
            cpu_watch::register_mapping(
                {.memory = buffer->memory(),
                 .iova = iova,
                 .label = label,
                 .device_writes = direction != Direction::to_device,
                 .freed =
                     [](void* context, Iova start, const HeapBlock& block) noexcept {
                         static_cast<BufferWatch*>(context)->memory_freed(start, block);
                     },
                 .context = this});
        } catch (const std::bad_alloc&) { // the mapping is watched a little less
        }
        return {};
    }

    /// A sampled range stays claimed in the quarantine, so that no thread can release it.
    [[nodiscard]] Result<void> release(const typename PageMapper<Domain, Sync>::Claimed& claimed) {
        if (!sampling_)
            return pages_.allocator().release(claimed.claim);
        const auto oldest = sampling_->quarantine(claimed.pages);
        return oldest ? release_quarantined(*oldest) : Result<void>{};
    }

    [[nodiscard]] Result<void> release_quarantined(IovaRange pages) {
        return pages_.allocator().release(pages_.allocator().claim_at(pages.start()));
    }

    /// The driver's later unmap still finds the mapping; the domain has nothing left to unmap then.
    void memory_freed(Iova iova, const HeapBlock& block) noexcept {
        const BufferPointer buffer = buffers_.find(iova);
        if (buffer == nullptr)
            return; // another thread has unmapped it
        buffer->abandon();
        const auto mapping = tracker_.deny_all(iova);
        if (!mapping)
            return;
        DriverError error = {.kind = DriverErrorKind::freed,
                             .range = mapping->range,
                             .mapping = *mapping,
                             .block = block,
                             .memory = buffer->memory()};
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

    /// Ends the use of a bounce buffer, whose pages a device may still reach unless `unmapped`.
    void end_bounce(const Memory& bounce, bool unmapped, RedZones zones) {
        if (unmapped)
            bounces_.release(bounce, zones);
        else
            bounces_.keep_for_good(bounce);
    }

    Tracker<Sync>& tracker_;
    PageMapper<Domain, Sync>& pages_;
    BouncePages bounces_;
    const Placement placement_;
    const bool to_the_byte_; ///< mappings that are tracked or sampled
    const CpuWatch checker_;
    const std::unique_ptr<Sampling<Sync>> sampling_; ///< null without sampling
    ExactBuffers<Sync> buffers_;
};

} // namespace moat::dma
