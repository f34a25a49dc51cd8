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

/// Whoever derives from it calls `end_space` before the domain ends. `map` and `end` are flattened,
/// which saves some 30 instructions for each mapping.
template <class Space>
class SpaceCore : public Core {
  public:
    [[nodiscard, gnu::flatten]] Result<Mapping> map(const Memory& memory, Direction direction,
                                                    std::string_view label) final {
        return map_one(memory, direction,
                       [&](Space& space, const dma::Memory& own) __attribute__((always_inline)) {
                           return space.map_inline(own, direction, keep(label));
                       });
    }

    [[nodiscard]] Result<Mapping> map_coherent(const Memory& memory, std::string_view label) final {
        return map_one(memory, bidirectional, [&](Space& space, const dma::Memory& own) {
            return space.map_coherent(own, keep(label));
        });
    }

    [[nodiscard]] Result<Mapping> map_region(std::span<std::byte> region, Direction direction,
                                             std::string_view label) final {
        return map_one(region, direction, [&](Space& space, const dma::Memory& own) {
            return space.map_region(own.physical, own.size(), direction, keep(label));
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

    [[gnu::flatten]] void end(std::uint64_t iova, std::size_t bytes, Direction direction,
                              BlockShare& share) noexcept final {
        const Result<void> unmapped = with<void>([&](Space& space) __attribute__((always_inline)) {
            return space.unmap_inline(Iova(iova), ByteCount(bytes), direction);
        });
        if (!unmapped || defers()) [[unlikely]]
            if (share.block() != nullptr)
                leave_behind(*this, share, unmapped);
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
        return {};
    }

    void end_space() final {
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

    template <class Map>
    [[nodiscard, gnu::always_inline]] Result<Mapping> map_one(const Memory& memory,
                                                              Direction direction, Map&& map) {
        return with<Mapping>([&](Space& space) __attribute__((always_inline)) -> Result<Mapping> {
            const std::span<std::byte> bytes = memory.bytes();
            const auto start = reinterpret_cast<std::uintptr_t>(bytes.data());
            if (bytes.size() - 1 >= -start || !is_one(direction)) [[unlikely]] // also null or empty
                return bad_memory(bytes, direction);
            MOAT_LET(const Iova iova, map(space, dma::Memory::own(bytes)));
            return Result<Mapping>(std::in_place, link(), iova, ByteCount(bytes.size()), direction,
                                   Block::share(memory.block()));
        });
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
        MOAT_LET(const auto mapped, space.map_list(own, direction, segments, limits, keep(label)));
        segments.resize(mapped.segments.size());
        return Result<ListMapping>(
            std::in_place, Mapping(link(), mapped.start, mapped.size, direction, nullptr),
            std::move(segments), std::move(shares), limits.guard != ByteCount(0));
    });
}

} // namespace moat::api
