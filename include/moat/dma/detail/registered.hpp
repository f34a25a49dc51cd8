// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Registered: a living mapping as the registry shows it; PackedMapping: as it keeps it. Values
// only.
#pragma once

#include "moat/dma/memory.hpp"
#include "moat/fault/mapping.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string_view>

namespace moat::dma {

/// Labels and stacks outlive the registry.
struct Registered {
    fault::Mapping mapping = {};
    Direction direction = Direction::bidirectional;
    bool is_part = false;    ///< of a list with guards: it ends with its list
    void* watched = nullptr; ///< what watches its bytes (buffer_watch.hpp), or null
};

/// The guards of a mapping in pages of 4K, rounded up; 2^32 - 1 pages stand for more.
class PackedGuards {
  public:
    PackedGuards() = default;

    PackedGuards(ByteCount before, ByteCount after)
        : before_(pages(before)), after_(pages(after)) {}

    [[nodiscard]] ByteCount before() const { return bytes(before_); }

    [[nodiscard]] ByteCount after() const { return bytes(after_); }

  private:
    [[nodiscard]] static std::uint32_t pages(ByteCount guard) {
        constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();
        const std::uint64_t whole = guard.value() / 4096 + (guard.value() % 4096 != 0 ? 1 : 0);
        return static_cast<std::uint32_t>(std::min(whole, most));
    }

    [[nodiscard]] static ByteCount bytes(std::uint64_t pages) { return ByteCount(pages * 4096); }

    std::uint32_t before_ = 0;
    std::uint32_t after_ = 0;
};

/// What all mappings of a registry share, except the parts of lists, which have their own guards.
struct SharedByMappings {
    PackedGuards guards = {};
    std::uint32_t sampled_of = 0; ///< see fault::Mapping
};

/// A mapping without the number of its first page of 4K, the mapping thread, and what its registry
/// knows (SharedByMappings). A cache line holds it with its lock. Stacks are cut off at 255 frames,
/// labels at 4 GiB.
class PackedMapping {
  public:
    /// [start, start + size) is not empty.
    [[gnu::always_inline]] void set(Iova start, ByteCount size, Direction direction,
                                    std::string_view label, const fault::Event& mapped,
                                    void* watched = nullptr) {
        size_ = size.value();
        label_ = label.data();
        frames_ = mapped.stack.data();
        time_ns_ = mapped.time_ns;
        label_size_ = static_cast<std::uint32_t>(label.size());
        own_.watched = watched;
        bits_ = place_and_direction(start, direction) |
                static_cast<std::uint32_t>(allows_of(direction)) << allows_at |
                static_cast<std::uint32_t>(std::min(mapped.stack.size(), most_frames)) << frames_at;
    }

    /// The same for a part of a list, between `guards`.
    void set_part(Iova start, ByteCount size, PackedGuards guards, Direction direction,
                  std::string_view label, const fault::Event& mapped) {
        set(start, size, direction, label, mapped);
        own_.guards = guards;
        bits_ |= part_bit;
    }

    /// Whether it begins at `start` of its page. Cheaper than a look at the range.
    [[nodiscard]] bool begins_at(Iova start) const {
        return (bits_ & place_mask) == (start.value() & place_mask);
    }

    /// Whether it is [start, start + size) for `direction`, and no part of a list.
    [[nodiscard]] bool is(Iova start, ByteCount size, Direction direction) const {
        return size_ == size.value() && (bits_ & (place_mask | direction_mask | part_bit)) ==
                                            place_and_direction(start, direction);
    }

    void deny_all() { bits_ &= ~allows_mask; }

    [[nodiscard]] Iova start(std::uint64_t page) const {
        return Iova(page << 12 | (bits_ & place_mask));
    }

    /// What watches its bytes, or null.
    [[nodiscard]] void* watched() const { return (bits_ & part_bit) != 0 ? nullptr : own_.watched; }

    [[nodiscard]] Registered unpack(std::uint64_t page, const SharedByMappings& shared) const {
        const bool is_part = (bits_ & part_bit) != 0;
        const PackedGuards guards = is_part ? own_.guards : shared.guards;
        return {.mapping = {.range = {start(page), ByteCount(size_)},
                            .guard_before = guards.before(),
                            .guard_after = guards.after(),
                            .allows = static_cast<fault::Allows>(bits_ >> allows_at & 3),
                            .label = {label_, label_size_},
                            .mapped = {.time_ns = time_ns_, .stack = {frames_, bits_ >> frames_at}},
                            .sampled_of = shared.sampled_of},
                .direction = static_cast<Direction>(bits_ >> direction_at & 3),
                .is_part = is_part,
                .watched = watched()};
    }

  private:
    // Of `bits_`: the offset in the page, the direction, what is allowed, is_part, the frames.
    static constexpr std::uint32_t place_mask = 0xfff;
    static constexpr unsigned direction_at = 12;
    static constexpr std::uint32_t direction_mask = 3U << direction_at;
    static constexpr unsigned allows_at = 14;
    static constexpr std::uint32_t allows_mask = 3U << allows_at;
    static constexpr std::uint32_t part_bit = 1U << 16;
    static constexpr unsigned frames_at = 24;
    static constexpr std::size_t most_frames = 255;

    [[nodiscard]] static std::uint32_t place_and_direction(Iova start, Direction direction) {
        return static_cast<std::uint32_t>(start.value() & place_mask) |
               static_cast<std::uint32_t>(direction) << direction_at;
    }

    std::uint64_t size_ = 0;
    const char* label_ = nullptr;
    const std::uintptr_t* frames_ = nullptr;
    std::uint64_t time_ns_ = 0;
    std::uint32_t label_size_ = 0;
    std::uint32_t bits_ = 0;

    union Own {
        Own() : watched(nullptr) {}

        void* watched;
        PackedGuards guards; ///< of a part
    } own_;
};

static_assert(sizeof(PackedMapping) == 48);

} // namespace moat::dma
