// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Space where mappings are watched to the byte: level exact, sampled ones, and those whose CPU side
// a memory checker watches. Included by space.hpp; space_tracked.hpp has what is below that.
#pragma once

#include "moat/dma/space.hpp"

#include <algorithm>
#include <new>

namespace moat::dma {

/// Every step that can fail comes before the first that others can see.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_watched(const Memory& memory, Direction direction,
                                              std::string_view label) {
    if (memory.bytes.size() - 1 >= most_bytes)
        return cannot_map(memory.size());
    if (const auto fine = check_addressable(memory, label); !fine)
        return std::unexpected(fine.error());
    Result<BufferPointer> buffer = buffer_for(memory, direction);
    if (!buffer)
        return std::unexpected(buffer.error());
    const Memory bounce = (*buffer)->bounce();
    const Memory& reached = bounce.bytes.empty() ? memory : bounce;
    const Result<Iova> iova = map_sampled_pages(reached, direction);
    if (!iova) {
        release_pages(bounce);
        return iova;
    }
    const bool with_stack = sampling_ || watch_ != CpuWatch::off;
    const fault::Mapping mapping = describe({*iova, memory.size()}, direction, label,
                                            with_stack ? now_with_stack() : now_by_whom());
    if (const auto noted = note_watched(*iova, *buffer, mapping, direction); !noted) {
        if (unmap_pages(*iova, memory.size()))
            release_pages(bounce);
        else
            keep_for_good(bounce); // a device may reach it still
        return std::unexpected(noted.error());
    }
    look_for_double_mapping(mapping, {&memory, 1}, direction);
    return iova;
}

/// Adds the mapping to every index, or to none.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::note_watched(Iova iova, const BufferPointer& buffer,
                                               const fault::Mapping& mapping, Direction direction) {
    if (!buffers_.add(iova, buffer))
        return fail(ErrorCode::no_memory, "no memory to note a mapping", {"iova", iova.value()});
    const auto added = registry_.add(
        iova, [&](Registered& what) { what = {.mapping = mapping, .direction = direction}; });
    if (!added) {
        (void)buffers_.remove(iova);
        return added;
    }
    if (sampling_)
        sampling_->note_begin(iova);
    if (watch_ == CpuWatch::off)
        return {};
    try {
        cpu_watch::register_mapping(
            {.memory = buffer->memory(),
             .iova = iova,
             .label = mapping.label,
             .device_writes = direction != Direction::to_device,
             .freed =
                 [](void* context, Iova start, const HeapBlock& block) noexcept {
                     static_cast<Space*>(context)->memory_freed(start, block);
                 },
             .context = this});
    } catch (const std::bad_alloc&) { // the mapping is watched a little less
    }
    return {};
}

/// `was`: what the registry knew, unless the mapping is a list with guards.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unmap_watched(Iova iova, ByteCount size,
                                                const std::optional<fault::Mapping>& was) {
    const BufferPointer buffer = buffers_.remove(iova);
    if (buffer == nullptr && !to_the_byte())
        return unmap_pages(iova, size);
    double_mappings_.remove(iova);
    if (buffer != nullptr)
        cpu_watch::unregister_mapping(buffer->memory(), this, iova);
    const std::uint64_t offset = iova.value() & page_mask_;
    const IovaRange pages(Iova(iova.value() - offset),
                          ByteCount(whole_pages(offset, size.value())));
    const auto claim = allocator_->claim(pages.start(), pages.size());
    if (!claim)
        return std::unexpected(claim.error());
    const Result<void> unmapped = domain_.unmap(pages.start(), pages.size());
    poison_.remove({iova, size});
    const BufferFindings found = buffer != nullptr ? buffer->end() : BufferFindings{};
    if (buffer != nullptr && unmapped)
        release_pages(buffer->bounce());
    else if (buffer != nullptr)
        keep_for_good(buffer->bounce()); // a device may reach it still
    if (sampling_)
        sampling_->note_end(iova);
    const Result<void> done =
        unmapped ? release_watched(*claim, pages) : finish_unmap(*claim, pages, unmapped);
    if (was)
        report(found, *was);
    return done;
}

/// A sampled range stays claimed while it is in quarantine, so that nobody can release it.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::release_watched(const typename Allocator::Claim& claim,
                                                  IovaRange pages) {
    if (!sampling_)
        return allocator_->release(claim);
    if (const auto oldest = sampling_->quarantine(pages))
        return allocator_->release(allocator_->claim_at(oldest->start()));
    return {};
}

/// Takes addresses out of the samples' quarantine where the space is full.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_sampled_pages(const Memory& memory, Direction direction) {
    const auto map = [&] {
        return map_pages(memory.physical, memory.size(), attributes_of(direction));
    };
    Result<Iova> iova = map();
    while (!iova && iova.error().code() == ErrorCode::no_space && sampling_) {
        const auto oldest = sampling_->release_oldest();
        if (!oldest)
            break;
        if (const auto released = allocator_->release(allocator_->claim_at(oldest->start()));
            !released)
            return std::unexpected(released.error());
        iova = map();
    }
    return iova;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::check_addressable(const Memory& memory, std::string_view label) {
    if (watch_ == CpuWatch::off)
        return {};
    const auto bad = cpu_watch::find_inaddressable(memory.bytes);
    if (!bad)
        return {};
    DriverError error = {.kind = DriverErrorKind::not_addressable};
    error.mapping.label = label;
    error.memory = memory.bytes;
    error.block = bad->block;
    report(error);
    return fail(ErrorCode::out_of_range, "the memory is not wholly addressable",
                {"memory", reinterpret_cast<std::uintptr_t>(memory.bytes.data())},
                {"size", memory.bytes.size()}, {"first", bad->first},
                {"block_size", bad->block.size.value()});
}

/// A small buffer gets pages of its own and lies at their edge. So does a buffer of any size that
/// the checker forbids the CPU while in-process devices write it.
template <iommu::Domain Domain, SyncPolicy Sync>
auto Space<Domain, Sync>::buffer_for(const Memory& memory, Direction direction)
    -> Result<BufferPointer> {
    const bool small = memory.size() <= ByteCount(page_mask_ + 1);
    const bool in_process = domain_.limits().in_process;
    const bool watched = watch_ != CpuWatch::off && direction != Direction::to_device;
    Memory bounce;
    if ((to_the_byte() && small) || (watched && in_process && pages_.allocate != nullptr)) {
        const Result<Memory> edge = at_an_edge(memory);
        if (!edge)
            return std::unexpected(edge.error());
        bounce = *edge;
    }
    cpu_watch::allow(watch_, memory.bytes); // where another mapping forbids it
    const bool device_is_cpu = in_process && bounce.bytes.empty();
    auto buffer = Buffer::create(memory, bounce, direction, page_mask_ + 1,
                                 device_is_cpu ? CpuWatch::off : watch_);
    if (buffer == nullptr) {
        release_pages(bounce);
        return fail(ErrorCode::no_memory, "no memory to watch a buffer",
                    {"size", memory.bytes.size()});
    }
    return buffer;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Memory> Space<Domain, Sync>::at_an_edge(const Memory& memory) {
    const ByteCount whole(whole_pages(0, memory.bytes.size()));
    const Memory pages = pages_.allocate(pages_.context, whole);
    if (pages.bytes.empty())
        return fail(ErrorCode::no_memory, "no pages for a buffer", {"size", whole.value()});
    const std::uint64_t alignment =
        memory.physical.value() == 0
            ? page_mask_ + 1
            : bit(std::min(edge_alignment_lg2, alignment_lg2(memory.physical.value())));
    const bool left = sampling_ && (sample_random::next() >> 63) != 0;
    return place_at_edge(pages, memory.bytes.size(), left ? Placement::left : options_.placement,
                         alignment);
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::release_pages(const Memory& bounce) {
    if (bounce.bytes.empty())
        return;
    const auto all = pages_around(bounce, page_mask_ + 1);
    pages_.release(pages_.context, {all, PhysicalAddress(bounce.physical.value() & ~page_mask_)});
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::look_for_double_mapping(const fault::Mapping& mapping,
                                                  std::span<const Memory> pieces,
                                                  Direction direction) {
    if (!tracks() || options_.level != Level::exact ||
        options_.double_mapping == DoubleMapping::ignore)
        return;
    const auto start = double_mappings_.add(mapping.range.start(), pieces, direction);
    if (!start)
        return;
    DriverError error = {
        .kind = DriverErrorKind::double_mapping, .range = mapping.range, .mapping = mapping};
    (void)registry_.with(*start, [&](Registered& each) -> Result<void> {
        error.other = each.mapping;
        return {};
    });
    if (error.other) // else it ended meanwhile
        report(error);
}

/// The driver's later unmap still finds the mapping; the domain has nothing left to unmap then.
template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::memory_freed(Iova iova, const HeapBlock& block) noexcept {
    const BufferPointer buffer = buffers_.find(iova);
    if (buffer == nullptr)
        return; // unmapped meanwhile
    buffer->abandon();
    DriverError error = {.kind = DriverErrorKind::freed, .block = block};
    const auto known = registry_.with(iova, [&](Registered& each) -> Result<void> {
        error.mapping = each.mapping;
        each.mapping.allows = fault::Allows::nothing;
        return {};
    });
    if (!known)
        return;
    error.range = error.mapping.range;
    error.memory = buffer->memory();
    const std::uint64_t offset = iova.value() & page_mask_;
    const ByteCount pages(whole_pages(offset, error.range.size().value()));
    if (!domain_.unmap(Iova(iova.value() - offset), pages))
        report({.kind = DriverErrorKind::not_invalidated,
                .range = error.range,
                .mapping = error.mapping});
    error.when = now_with_stack();
    report(error);
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::report(const BufferFindings& found, const fault::Mapping& mapping) const {
    const auto each = [&](DriverErrorKind kind, const std::optional<FoundBytes>& bytes) {
        if (bytes)
            report({.kind = kind, .range = bytes->at(mapping.range.start()), .mapping = mapping});
    };
    each(DriverErrorKind::cpu_wrote, found.cpu_wrote);
    each(DriverErrorKind::missing_sync, found.missing_sync);
    each(DriverErrorKind::red_zone, found.red_zone);
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::poison(Iova start, ByteCount size) {
    const Result<IovaRange> range = range_to_poison(start, size);
    if (!range)
        return std::unexpected(range.error());
    if constexpr (iommu::DeferringDomain<Domain>)
        return poison_and_wait(poison_, domain_, *range);
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unpoison(Iova start, ByteCount size) {
    const Result<IovaRange> range = range_to_poison(start, size);
    if (!range)
        return std::unexpected(range.error());
    poison_.remove(*range);
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<IovaRange> Space<Domain, Sync>::range_to_poison(Iova start, ByteCount size) const {
    if (!bounds_)
        return fail(ErrorCode::unsupported, "bytes are poisoned at level exact, behind an IOMMU "
                                            "that asks for bounds; others know only pages");
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "there is nothing to poison", {"iova", start.value()});
    const Result<IovaRange> range = IovaRange::make(start, size);
    const auto found = registry_.at_or_below(start);
    if (!range || !found || !found->range.contains(*range))
        return fail(ErrorCode::not_found, "the range lies in no one mapping",
                    {"iova", start.value()}, {"size", size.value()});
    return range;
}

} // namespace moat::dma
