// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// PhysicalMemory: the layout of physical addresses: tables, RAM by NUMA node, devices above. It
// allocates frames and tables, and classifies addresses. address_space.hpp maps them.
//
//     0 .. tables_base         nothing, so that reading a table at address 0 is caught
//     tables_base ...          tables
//     ram_base ...             RAM, node after node; aligned to 1 GiB
//     above                    device regions
//
// Thread-safe, except add_region().
#pragma once

#include "moat/core/range.hpp"
#include "moat/mm/detail/frame_blocks.hpp"
#include "moat/mm/frame_store.hpp"
#include "moat/mm/vma.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

namespace moat::mm {

struct PhysicalLayout {
    /// The RAM of each node, a multiple of a page; at most `most_nodes`.
    std::span<const ByteCount> nodes;
    PhysicalAddress tables_base{0x1000'0000};
    PhysicalAddress ram_base{0x4000'0000};
};

/// The kind of memory at a physical address.
enum class Behind : std::uint8_t {
    nothing,    ///< no memory: no leaf may map it
    table,      ///< memory of tables: no leaf may map it
    ram,        ///< a frame
    zero,       ///< the huge zero page
    device,     ///< a BAR: no page struct, special
    page_struct ///< device memory with page structs
};

template <FrameStore Store>
class PhysicalMemory {
  public:
    using Sync = typename Store::Sync;
    using FrameType = Frame<Sync>;
    using Region = DeviceRegion<Sync>;
    static constexpr unsigned most_regions = 32;

    /// An invalid layout fails a CHECK.
    PhysicalMemory(Store store, const PhysicalLayout& layout)
        : store_(std::move(store)), tables_base_(layout.tables_base.value()),
          tables_bytes_(store_.tables().size()), ram_base_(layout.ram_base.value()),
          nodes_count_(static_cast<unsigned>(layout.nodes.size())),
          pool_(store_.tables(), layout.tables_base, store_.headers(), frame_lg2) {
        MOAT_CHECK(tables_base_ != 0 && tables_base_ + tables_bytes_ <= ram_base_ &&
                       is_aligned(ram_base_, pud_lg2) && nodes_count_ != 0 &&
                       nodes_count_ <= most_nodes,
                   "tables lie below RAM, which is aligned to 1 GiB and has nodes");
        std::uint64_t total = 0;
        for (const ByteCount bytes : layout.nodes)
            total += bytes.value() >> frame_lg2;
        frames_ = store_.frames(total);
        MOAT_CHECK(frames_.size() == total && total < ~std::uint32_t{0},
                   "there is metadata for all RAM");
        std::uint32_t first = 0;
        for (unsigned node = 0; node != nodes_count_; ++node) {
            const auto count = static_cast<std::uint32_t>(layout.nodes[node].value() >> frame_lg2);
            for (std::uint32_t i = first; i != first + count; ++i)
                frames_[i].node = static_cast<std::uint8_t>(node);
            const ExclusiveLock lock(nodes_[node].mutex);
            nodes_[node].blocks.set_up(frames_, first, count);
            first += count;
        }
    }

    /// A frame that is still in use is a leak and fails a CHECK: see frames_in_use().
    ~PhysicalMemory() {
        if (const std::uint64_t zero = zero_.exchange(0, std::memory_order_acq_rel); zero != 0)
            drop(PhysicalAddress(zero));
        Sync::barrier();
        MOAT_CHECK(frames_in_use() == 0, "every frame was given back");
    }

    PhysicalMemory(const PhysicalMemory&) = delete;
    PhysicalMemory& operator=(const PhysicalMemory&) = delete;

    // TableMemory, for the page-table engine.

    [[nodiscard]] Result<PhysicalAddress> allocate(unsigned bytes_lg2) {
        return pool_.allocate(bytes_lg2);
    }

    void release(PhysicalAddress table, unsigned bytes_lg2) { pool_.release(table, bytes_lg2); }

    /// A walk that takes a leaf for a table passes a device's address here.
    [[nodiscard]] Word* words(PhysicalAddress table) const {
        MOAT_CHECK(table.value() - tables_base_ < tables_bytes_,
                   "a table is read from memory that holds tables");
        return pool_.words(table);
    }

    [[nodiscard]] TableHeader& header(PhysicalAddress table) const { return pool_.header(table); }

    [[nodiscard]] std::uint64_t tables_in_use() const { return pool_.units_in_use(); }

    // Frames.

    /// A block of 2^order frames, aligned to its size, its contents zero, with one reference.
    /// `page` is the page's number in its mapping, for interleaving. Errors: unsupported (`order`
    /// is not that of a page, 2 MiB or 1 GiB), no_memory.
    [[nodiscard]] Result<PhysicalAddress> take(unsigned order, const NodePolicy& policy,
                                               std::uint64_t page, unsigned home) {
        if (order != 0 && order != pmd_lg2 - frame_lg2 && order != most_order) [[unlikely]]
            return fail(ErrorCode::unsupported, "a block is a page, 2 MiB or 1 GiB",
                        {"order", order});
        const unsigned first = policy.first(home, page) % nodes_count_;
        for (unsigned i = 0; i != nodes_count_; ++i)
            if (const unsigned node = (first + i) % nodes_count_; policy.allows(node))
                if (const auto block = order == 0 ? take_page(node) : take_from(node, order)) {
                    FrameType& frame = frames_[*block];
                    frame.flags.store(0, std::memory_order_relaxed);
                    frame.references.store(1, std::memory_order_relaxed);
                    frame.order.store(static_cast<std::uint8_t>(order), std::memory_order_release);
                    const std::uint64_t offset = std::uint64_t{*block} << frame_lg2;
                    store_.clear(offset, bit(order + frame_lg2));
                    return PhysicalAddress(ram_base_ + offset);
                }
        return fail(ErrorCode::no_memory, "no node that the policy allows has such a block",
                    {"bytes", bit(order + frame_lg2)});
    }

    /// Adds references to the block that `address` lies in; the caller relies on one already.
    void hold(PhysicalAddress address, std::uint32_t count = 1) {
        if (FrameType* const frame = counted_frame(address))
            frame->references.fetch_add(count, std::memory_order_relaxed);
    }

    /// Drops one reference; the last one frees the block. No effect on memory without counts, such
    /// as a BAR.
    void drop(PhysicalAddress address) {
        FrameType* const frame = counted_frame(address);
        if (frame == nullptr || frame->references.fetch_sub(1, std::memory_order_acq_rel) != 1)
            return;
        if (contains_ram(address))
            give_back(*frame);
    }

    /// The kind of memory at `address`.
    [[nodiscard]] Behind behind(PhysicalAddress address) const {
        if (contains_ram(address))
            return is_zero(address) ? Behind::zero : Behind::ram;
        if (const Region* const region = region_at(address))
            return region->kind() == RegionKind::registers ? Behind::device : Behind::page_struct;
        return address.value() - tables_base_ < tables_bytes_ ? Behind::table : Behind::nothing;
    }

    /// The metadata of the 4 KiB frame at `address`, or nullptr without any.
    [[nodiscard]] FrameType* frame(PhysicalAddress address) const {
        if (contains_ram(address))
            return &frames_[(address.value() - ram_base_) >> frame_lg2];
        const Region* const region = region_at(address);
        return region != nullptr && region->kind() == RegionKind::page_structs
                   ? &region->frame(address)
                   : nullptr;
    }

    /// The first frame of the block of `address`, which has its count, or nullptr.
    [[nodiscard]] FrameType* counted_frame(PhysicalAddress address) const {
        if (!contains_ram(address))
            return frame(address);
        const std::uint64_t number = (address.value() - ram_base_) >> frame_lg2;
        for (const unsigned order : {0U, pmd_lg2 - frame_lg2, most_order}) {
            FrameType& first = frames_[align_down(number, order)];
            if (first.order.load(std::memory_order_acquire) == order)
                return &first;
        }
        return nullptr;
    }

    /// The huge zero page: 2 MiB that read as zero, mapped without being counted. Allocated at its
    /// first use and kept. Errors: no_memory.
    [[nodiscard]] Result<PhysicalAddress> zero_page() {
        if (const std::uint64_t zero = zero_.load(std::memory_order_acquire); zero != 0)
            return PhysicalAddress(zero);
        const Result<PhysicalAddress> fresh = take(pmd_lg2 - frame_lg2, {}, 0, 0);
        if (!fresh)
            return fresh;
        std::uint64_t expected = 0;
        if (zero_.compare_exchange_strong(expected, fresh->value(), std::memory_order_acq_rel,
                                          std::memory_order_acquire))
            return fresh;
        drop(*fresh);
        return PhysicalAddress(expected);
    }

    [[nodiscard]] bool is_zero(PhysicalAddress address) const {
        const std::uint64_t zero = zero_.load(std::memory_order_acquire);
        return zero != 0 && ((address.value() ^ zero) >> pmd_lg2) == 0;
    }

    [[nodiscard]] PhysicalRange ram() const {
        return {PhysicalAddress(ram_base_), ByteCount(frames_.size() << frame_lg2)};
    }

    /// Allocated frames, without those of the huge zero page. Exact while no thread takes or drops
    /// any.
    [[nodiscard]] std::uint64_t frames_in_use() const {
        std::uint64_t count = 0 - cached();
        for (unsigned node = 0; node != nodes_count_; ++node) {
            const ExclusiveLock lock(nodes_[node].mutex);
            count += nodes_[node].in_use;
        }
        return zero_.load(std::memory_order_acquire) == 0 ? count
                                                          : count - bit(pmd_lg2 - frame_lg2);
    }

    /// Adds a device region above RAM; one thread, before any mapping of it. Errors: unaligned,
    /// empty, overlap (with RAM, tables or a region), limit, no_memory (for page structs).
    [[nodiscard]] Result<Region*> add_region(PhysicalRange range, RegionKind kind) {
        const std::uint64_t start = range.start().value();
        if (range.empty())
            return fail(ErrorCode::empty, "a region has a length", {"start", start});
        if (!is_aligned(start | range.size().value(), frame_lg2))
            return fail(ErrorCode::unaligned, "a region is made of pages", {"start", start},
                        {"size", range.size().value()});
        if (start < ram().end().value())
            return fail(ErrorCode::overlap, "regions lie above RAM", {"start", start});
        for (unsigned i = 0; i != regions_count_; ++i)
            if (regions_[i].range().overlaps(range))
                return fail(ErrorCode::overlap, "a region lies there already", {"start", start});
        if (regions_count_ == most_regions)
            return fail(ErrorCode::limit, "too many device regions", {"most", most_regions});
        std::span<FrameType> frames;
        if (kind == RegionKind::page_structs) {
            frames = store_.frames(range.size().value() >> frame_lg2);
            if (frames.empty())
                return fail(ErrorCode::no_memory, "no memory for a region's page structs",
                            {"size", range.size().value()});
            for (FrameType& each : frames)
                each.order.store(0, std::memory_order_relaxed);
        }
        Region* const region = &regions_[regions_count_++];
        region->~Region();
        return new (region) Region(range, kind, frames);
    }

    /// The region that `address` lies in, or nullptr.
    [[nodiscard]] Region* region_at(PhysicalAddress address) const {
        for (unsigned i = 0; i != regions_count_; ++i)
            if (regions_[i].range().contains(address))
                return &regions_[i];
        return nullptr;
    }

    [[nodiscard]] Store& store() { return store_; }

  private:
    struct Node {
        mutable typename Sync::Mutex mutex;
        FrameBlocks<Sync> blocks MOAT_GUARDED_BY(mutex);
        std::uint64_t in_use MOAT_GUARDED_BY(mutex) = 0;
    };

    [[nodiscard]] bool contains_ram(PhysicalAddress address) const {
        return address.value() - ram_base_ < frames_.size() << frame_lg2;
    }

    /// Free frames of one node that a thread keeps, so that most allocations take no lock.
    struct alignas(128) Cache {
        unsigned node = 0;
        typename Sync::template Atomic<std::uint32_t> count{0}; ///< others only read it
        std::array<std::uint32_t, Store::cached_frames + 1> frames;
    };

    struct NoCaches {
        NoCaches(void (*)(void*, Cache&), void*) {}
    };

    using Caches = std::conditional_t<Store::cached_frames == 0, NoCaches,
                                      typename Sync::template ThreadLocal<Cache>>;

    /// The calling thread's, or nullptr.
    [[nodiscard]] Cache* own_cache() {
        if constexpr (Store::cached_frames != 0)
            return caches_.local();
        else
            return nullptr;
    }

    [[nodiscard]] std::uint64_t cached() const {
        std::uint64_t sum = 0;
        if constexpr (Store::cached_frames != 0)
            caches_.for_each(
                [](void* total, Cache& cache) {
                    *static_cast<std::uint64_t*>(total) +=
                        cache.count.load(std::memory_order_acquire);
                },
                &sum);
        return sum;
    }

    std::optional<std::uint32_t> take_page(unsigned node) {
        Cache* const cache = own_cache();
        if (cache == nullptr)
            return take_from(node, 0);
        std::uint32_t count = cache->count.load(std::memory_order_relaxed);
        if (count == 0)
            count = refill(*cache, node);
        if (count == 0 || cache->node != node)
            return take_from(node, 0);
        cache->count.store(count - 1, std::memory_order_release);
        return cache->frames[count - 1];
    }

    /// Return: the number of frames of `node` in the cache.
    std::uint32_t refill(Cache& cache, unsigned node) {
        cache.node = node;
        std::uint32_t count = 0;
        const ExclusiveLock lock(nodes_[node].mutex);
        while (count != Store::cached_frames / 2)
            if (const auto frame = nodes_[node].blocks.take(0))
                cache.frames[count++] = *frame;
            else
                break;
        nodes_[node].in_use += count;
        // Neighbouring pages get ascending frames, so that walks read memory sequentially.
        std::reverse(cache.frames.begin(), cache.frames.begin() + count);
        cache.count.store(count, std::memory_order_release);
        return count;
    }

    void put_page(std::uint32_t frame) {
        Cache* const cache = own_cache();
        if (cache == nullptr || cache->node != frames_[frame].node) {
            put(frame, 0);
            return;
        }
        std::uint32_t count = cache->count.load(std::memory_order_relaxed);
        cache->frames[count++] = frame;
        if (count > Store::cached_frames)
            count = drain(*cache, count, Store::cached_frames / 2);
        cache->count.store(count, std::memory_order_release);
    }

    /// Frees the latest frames until `left` are left. Return: `left`.
    std::uint32_t drain(Cache& cache, std::uint32_t count, std::uint32_t left) {
        const ExclusiveLock lock(nodes_[cache.node].mutex);
        nodes_[cache.node].in_use -= count - left;
        while (count != left)
            nodes_[cache.node].blocks.put(cache.frames[--count], 0);
        return left;
    }

    static void end_thread(void* self, Cache& cache) {
        static_cast<PhysicalMemory*>(self)->drain(
            cache, cache.count.exchange(0, std::memory_order_acq_rel), 0);
    }

    std::optional<std::uint32_t> take_from(unsigned number, unsigned order) {
        Node& node = nodes_[number];
        const ExclusiveLock lock(node.mutex);
        const auto block = node.blocks.take(order);
        if (block)
            node.in_use += bit(order);
        return block;
    }

    void give_back(FrameType& frame) {
        const unsigned order = frame.order.load(std::memory_order_relaxed);
        frame.order.store(FrameType::no_order, std::memory_order_relaxed);
        const auto number = static_cast<std::uint32_t>(&frame - frames_.data());
        if (order == 0)
            put_page(number);
        else
            put(number, order);
    }

    void put(std::uint32_t block, unsigned order) {
        Node& node = nodes_[frames_[block].node];
        const ExclusiveLock lock(node.mutex);
        node.blocks.put(block, order);
        node.in_use -= bit(order);
    }

    Store store_;
    const std::uint64_t tables_base_;
    const std::uint64_t tables_bytes_;
    const std::uint64_t ram_base_;
    const unsigned nodes_count_;
    TablePool<Sync> pool_;
    std::span<FrameType> frames_;
    mutable std::array<Node, most_nodes> nodes_;
    typename Sync::template Atomic<std::uint64_t> zero_{0};
    mutable std::array<Region, most_regions> regions_{};
    unsigned regions_count_ = 0;
    /// The last member: its destructor ends the calls from exiting threads.
    mutable Caches caches_{&PhysicalMemory::end_thread, this};
};

} // namespace moat::mm
