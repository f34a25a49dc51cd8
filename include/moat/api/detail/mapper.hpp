// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What moat.hpp compiles into a program: the way from a Mapping to its container, which may have
// ended, and from there to the two functions that map and unmap. src/api defines the rest.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/dma/memory.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace moat {
class Memory;
} // namespace moat

namespace moat::api {

class Block;
class Core;
class Mapper;

/// How objects find a container that may have ended: src/api/link.hpp.
struct Anchor {
    /// Counts the containers that ended; a Link of one of those differs.
    std::atomic<std::uint64_t> generation{1};
    Mapper* mapper = nullptr;
};

/// What a Link without a container points to, so that no Link is tested for nullptr.
inline constinit Anchor nowhere;

/// A container, found as long as it lives. Trivially copyable.
class Link {
  public:
    constexpr Link() = default;

    constexpr Link(Anchor* anchor, std::uint64_t generation)
        : anchor_(anchor), generation_(generation) {}

    /// nullptr once the container has ended.
    [[nodiscard]] Mapper* mapper() const {
        const Anchor* const anchor = anchor_;
        if (anchor->generation.load(std::memory_order_acquire) != generation_)
            return nullptr;
        Mapper* const found = anchor->mapper;
        if (found == nullptr)
            __builtin_unreachable(); // a living anchor has one: one test less for each mapping
        return found;
    }

    /// The same, for src/api.
    [[nodiscard]] Core* core() const;

  private:
    Anchor* anchor_ = &nowhere;
    std::uint64_t generation_ = 0; ///< no anchor's
};

/// A share of a Buffer's memory.
class BlockShare {
  public:
    BlockShare() = default;

    /// Takes over a share that `block` counts; nullptr: none.
    explicit BlockShare(Block* block) : block_(block) {}

    BlockShare(BlockShare&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}

    BlockShare& operator=(BlockShare&& other) noexcept {
        std::swap(block_, other.block_);
        return *this;
    }

    BlockShare(const BlockShare&) = delete;
    BlockShare& operator=(const BlockShare&) = delete;

    ~BlockShare() {
        if (block_ != nullptr)
            drop(block_);
    }

    [[nodiscard]] Block* block() const { return block_; }

    /// The caller counts the share from now on.
    Block* release() { return std::exchange(block_, nullptr); }

  private:
    static void drop(Block* block);

    Block* block_ = nullptr;
};

/// The part of a Core that maps and unmaps. Its two functions are chosen once, for a level; a
/// virtual function would have to choose in each call.
class Mapper {
  public:
    virtual ~Mapper();
    Mapper(const Mapper&) = delete;
    Mapper& operator=(const Mapper&) = delete;

    /// Maps, and takes a share of the memory's block. Errors: Container::map's.
    [[nodiscard]] Result<Iova> map(const Memory& memory, dma::Direction direction,
                                   std::string_view label) {
        return map_.load(std::memory_order_acquire)(*this, memory, direction, label);
    }

    /// Unmaps a mapping that ends, and drops its share of `block`.
    void end(std::uint64_t iova, std::size_t bytes, dma::Direction direction,
             Block* block) noexcept {
        end_.load(std::memory_order_acquire)(*this, iova, bytes, direction, block);
    }

    [[nodiscard]] Link link() const { return {&anchor_, generation_}; }

  protected:
    using Map = Result<Iova>(Mapper&, const Memory&, dma::Direction, std::string_view);
    using End = void(Mapper&, std::uint64_t, std::size_t, dma::Direction, Block*) noexcept;

    Mapper(Anchor& anchor, Map& map, End& end)
        : map_(&map), end_(&end), anchor_(anchor),
          generation_(anchor.generation.load(std::memory_order_relaxed)) {
        anchor.mapper = this;
    }

    [[nodiscard]] Anchor& anchor() const { return anchor_; }

    void choose(Map& map, End& end) {
        end_.store(&end, std::memory_order_release);
        map_.store(&map, std::memory_order_release);
    }

  private:
    std::atomic<Map*> map_;
    std::atomic<End*> end_;
    Anchor& anchor_;
    const std::uint64_t generation_;
};

/// The error of a container that was moved away, or is closed.
[[nodiscard, gnu::cold]] std::unexpected<Error> no_container();

} // namespace moat::api
