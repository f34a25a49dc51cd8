// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The part of a core that is the same for every domain: arguments are checked, and calls become its
// space's, once there is one. soft_core.cpp and machine_core.hpp add domain and devices.
#pragma once

#include "moat/dma/space.hpp"

#include "block.hpp"
#include "core.hpp"
#include "platform/stack.hpp"
#include "recorders.hpp"

#include <atomic>
#include <utility>

namespace moat::api {

[[nodiscard]] inline bool is_one(Direction direction) {
    return direction <= bidirectional;
}

/// Why memory cannot be mapped for `direction`. Cold.
[[nodiscard]] std::unexpected<Error> bad_memory(std::span<std::byte> memory, Direction direction);

/// A range that is not empty and ends below 2^64. Errors: empty, overflow.
[[nodiscard]] Result<void> check_range(std::uint64_t start, std::uint64_t bytes);

/// Whoever derives from it calls `end_space` before the domain ends.
template <class Space>
class SpaceCore : public Core {
  public:
    [[nodiscard]] Result<Mapping> map_coherent(const Memory& memory, std::string_view label) final {
        return map_one(memory, bidirectional, [&](Space& space, const dma::Memory& own) {
            return space.map_coherent(own, keep(space, label));
        });
    }

    [[nodiscard]] Result<Mapping> map_region(std::span<std::byte> region, Direction direction,
                                             std::string_view label) final {
        return map_one(region, direction, [&](Space& space, const dma::Memory& own) {
            return space.map_region(own.physical, own.size(), direction, keep(space, label));
        });
    }

    [[nodiscard]] Result<ListMapping> map_list(std::span<const Memory> pieces, Direction direction,
                                               const SegmentLimits& limits,
                                               std::string_view label) final;

    Result<void> unmap(std::uint64_t iova, std::size_t bytes, Direction direction) final {
        return with<void>([&](Space& space) -> Result<void> {
            if (!is_one(direction) || bytes == 0 || bytes - 1 > ~iova) [[unlikely]]
                return bad_range(iova, bytes, direction);
            return space.unmap(Iova(iova), ByteCount(bytes), direction);
        });
    }

    Result<void> sync(SyncFor whom, std::uint64_t iova, std::uint64_t offset,
                      std::size_t bytes) final {
        return with<void>([&](Space& space) -> Result<void> {
            if (offset > ~iova)
                return fail(ErrorCode::overflow, "iova + offset is past 2^64", {"iova", iova},
                            {"offset", offset});
            MOAT_TRY(check_range(iova + offset, bytes));
            const ByteCount at(offset);
            const ByteCount size(bytes);
            return whom == SyncFor::cpu ? space.sync_for_cpu(Iova(iova), at, size)
                                        : space.sync_for_device(Iova(iova), at, size);
        });
    }

    Result<void> poison(std::uint64_t iova, std::size_t bytes) final {
        return with<void>([&](Space& space) -> Result<void> {
            MOAT_TRY(check_range(iova, bytes));
            return space.poison(Iova(iova), ByteCount(bytes));
        });
    }

    Result<void> unpoison(std::uint64_t iova, std::size_t bytes) final {
        return with<void>([&](Space& space) -> Result<void> {
            MOAT_TRY(check_range(iova, bytes));
            return space.unpoison(Iova(iova), ByteCount(bytes));
        });
    }

    Result<void> flush() final {
        return with<void>([](Space& space) { return space.flush(); });
    }

    Result<void> report_living() final {
        return with<void>([](Space& space) -> Result<void> {
            space.report_living();
            return {};
        });
    }

    [[nodiscard]] Result<ContainerLimits> limits() final {
        return with<ContainerLimits>([&](Space& space) -> Result<ContainerLimits> {
            const iommu::DomainLimits domain = space.domain().limits();
            const dma::Options& options = space.options();
            return ContainerLimits{.backend = backend(),
                                   .page_bytes = domain.leaf_sizes & -domain.leaf_sizes,
                                   .first_iova = domain.aperture.start().value(),
                                   .last_iova = domain.aperture.last().value(),
                                   .level = options.level,
                                   .unmapping = options.unmapping,
                                   .guard = options.guard,
                                   .guard_before = options.guard_before};
        });
    }

  protected:
    using Core::Core;

    /// The one in use.
    [[nodiscard]] virtual Backend backend() const = 0;

    [[nodiscard]] dma::SpaceConfig space_config(const ContainerConfig& config,
                                                const dma::Options& options) {
        return {
            .options = options,
            .dma_mask = Iova(config.dma_mask),
            .listener = listener(),
            .capture =
                [](std::span<std::uintptr_t> frames) { return platform::capture_stack(frames, 1); },
            .pages = dma::own_pages()};
    }

    /// Errors: Space::create's; io if the options name a recording that cannot be created.
    template <class Domain>
    [[nodiscard]] Result<void> begin_space(Domain& domain, dma::SpaceConfig config) {
        if (!config.options.record.empty()) {
            auto recorder = recorder_of(config.options.record);
            if (!recorder)
                return std::unexpected(recorder.error());
            recorder_ = std::move(*recorder);
            config.recorder = recorder_->recorder(
                next_container_name(), config.options.stacks != 0 ? config.capture : nullptr);
        }
        MOAT_LET(auto made, Space::create(domain, config));
        owner_ = std::move(made);
        space_.store(owner_.get(), std::memory_order_release);
        if (owner_->maps_pages_only())
            choose(map_pages, defers() ? end_deferred : end_pages);
        else
            choose(map_labelled, defers() ? end_deferred : end_labelled);
        return {};
    }

    void end_space() final {
        choose(map_nothing, end_nothing);
        space_.store(nullptr, std::memory_order_release);
        owner_.reset();
        if (recorder_ != nullptr)
            (void)recorder_->flush(); // writes a failure to standard error
    }

    [[nodiscard]] std::uint64_t page_bytes() final {
        const Space* const found = space();
        const std::uint64_t sizes =
            found != nullptr ? owner_->domain().limits().leaf_sizes : std::uint64_t{4096};
        return sizes & -sizes;
    }

    /// None before `begin_space`.
    [[nodiscard]] Space* space() const { return space_.load(std::memory_order_acquire); }

  private:
    template <class Value, class Act>
    [[nodiscard, gnu::always_inline]] Result<Value> with(Act&& act) {
        Space* const found = space();
        if (found == nullptr) [[unlikely]]
            return no_space_yet();
        return with_memory(
            [&]() __attribute__((always_inline)) -> Result<Value> { return act(*found); });
    }

    // What Mapper calls while there is a space. One function for each way, so that none saves
    // registers for another.

    static Result<Iova> map_pages(Mapper& core, const Memory& memory, Direction direction,
                                  std::string_view /*label*/) {
        return of(core).map_in(
            [=](Space& space, const dma::Memory& own)
                __attribute__((always_inline)) { return space.map_pages_inline(own, direction); },
            memory, direction);
    }

    static Result<Iova> map_labelled(Mapper& core, const Memory& memory, Direction direction,
                                     std::string_view label) {
        SpaceCore& self = of(core);
        return self.map_in(
            [=, &self](Space& space, const dma::Memory& own) __attribute__((always_inline)) {
                return space.map_inline(own, direction, self.labels().keep(label));
            },
            memory, direction);
    }

    static void end_pages(Mapper& core, std::uint64_t iova, std::size_t bytes,
                          Direction /*direction*/, Block* block) noexcept {
        of(core).end_with(block, [=](Space& space) __attribute__((always_inline)) {
            return space.unmap_pages_inline(Iova(iova), ByteCount(bytes));
        });
    }

    static void end_labelled(Mapper& core, std::uint64_t iova, std::size_t bytes,
                             Direction direction, Block* block) noexcept {
        of(core).end_with(block, [=](Space& space) __attribute__((always_inline)) {
            return space.unmap_inline(Iova(iova), ByteCount(bytes), direction);
        });
    }

    static void end_deferred(Mapper& core, std::uint64_t iova, std::size_t bytes,
                             Direction direction, Block* block) noexcept {
        SpaceCore& self = of(core);
        self.leave(block, with_memory([&] {
                       return self.space()->unmap(Iova(iova), ByteCount(bytes), direction);
                   }));
    }

    [[nodiscard]] static SpaceCore& of(Mapper& core) { return static_cast<SpaceCore&>(core); }

    template <class Map>
    [[nodiscard, gnu::always_inline]] Result<Iova> map_in(Map&& map, const Memory& memory,
                                                          Direction direction) {
        Result<Iova> mapped = with_memory([&]() __attribute__((always_inline)) -> Result<Iova> {
            const std::span<std::byte> bytes = memory.bytes();
            const auto start = reinterpret_cast<std::uintptr_t>(bytes.data());
            if (bytes.size() - 1 >= -start || !is_one(direction)) [[unlikely]] // also null or empty
                return bad_memory(bytes, direction);
            return map(*space(), dma::Memory::own(bytes));
        });
        if (mapped) [[likely]]
            Block::share(memory.block());
        return mapped;
    }

    template <class Map>
    [[nodiscard]] Result<Mapping> map_one(const Memory& memory, Direction direction, Map&& map) {
        if (space() == nullptr)
            return no_space_yet();
        MOAT_LET(const Iova iova, map_in(map, memory, direction));
        return Result<Mapping>(std::in_place, link(), iova, ByteCount(memory.bytes().size()),
                               direction, memory.block());
    }

    template <class Unmap>
    [[gnu::always_inline]] void end_with(Block* block, Unmap&& unmap) {
        const Result<void> unmapped =
            with_memory([=, this]() __attribute__((always_inline)) { return unmap(*space()); });
        if (!unmapped) [[unlikely]]
            return leave(block, unmapped);
        Block::drop(block);
    }

    [[gnu::noinline]] void leave(Block* block, const Result<void>& unmapped) {
        BlockShare share(block);
        if (block != nullptr)
            leave_behind(*this, share, unmapped);
    }

    /// The label as `space` keeps it.
    [[nodiscard]] std::string_view keep(const Space& space, std::string_view label) {
        return space.maps_pages_only() ? std::string_view() : labels().keep(label);
    }

    [[nodiscard]] static std::unexpected<Error> bad_range(std::uint64_t iova, std::size_t bytes,
                                                          Direction direction) {
        if (!is_one(direction))
            return fail(ErrorCode::unsupported, "no such direction",
                        {"direction", static_cast<std::uint64_t>(direction)});
        return std::unexpected(check_range(iova, bytes).error());
    }

    std::shared_ptr<dma::SpaceRecorder> recorder_; ///< outlives the space
    std::unique_ptr<Space> owner_;
    std::atomic<Space*> space_{nullptr};
};

template <class Space>
Result<ListMapping> SpaceCore<Space>::map_list(std::span<const Memory> pieces, Direction direction,
                                               const SegmentLimits& limits,
                                               std::string_view label) {
    return with<ListMapping>([&](Space& space) -> Result<ListMapping> {
        std::vector<dma::Memory> own;
        std::vector<BlockShare> shares;
        own.reserve(pieces.size());
        for (const Memory& each : pieces) {
            const auto start = reinterpret_cast<std::uintptr_t>(each.bytes().data());
            if (start == 0 || each.bytes().size() - 1 > ~start || !is_one(direction))
                return bad_memory(each.bytes(), direction);
            own.push_back(dma::Memory::own(each.bytes()));
            if (each.block() != nullptr)
                shares.emplace_back(Block::share(each.block()));
        }
        std::vector<Segment> segments(pieces.size());
        MOAT_LET(const auto mapped,
                 space.map_list(own, direction, segments, limits, keep(space, label)));
        segments.resize(mapped.segments.size());
        return Result<ListMapping>(
            std::in_place, Mapping(link(), mapped.start, mapped.size, direction, nullptr),
            std::move(segments), std::move(shares), limits.guard != ByteCount(0));
    });
}

} // namespace moat::api
