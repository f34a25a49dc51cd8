// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What diagnosis must know of mappings, living and past: views, and the concepts of their owners.
// It keeps none itself: the DMA API's registry does, or history.hpp, or a sorted array.
#pragma once

#include "moat/core/range.hpp"
#include "moat/fault/record.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace moat::fault {

/// What a device may do with a mapping.
enum class Allows : std::uint8_t { nothing, read, write, read_write };

[[nodiscard]] constexpr std::string_view name(Allows allows) {
    constexpr std::array<std::string_view, 4> names = {"nothing", "read", "write", "read-write"};
    return names[static_cast<std::size_t>(allows)];
}

/// An unknown access is allowed only where every access is.
[[nodiscard]] constexpr bool permits(Allows allows, Access access) {
    switch (access) {
    case Access::read:
    case Access::execute:
        return allows == Allows::read || allows == Allows::read_write;
    case Access::write:
        return allows == Allows::write || allows == Allows::read_write;
    case Access::unknown:
        break;
    }
    return allows == Allows::read_write;
}

/// Return addresses, innermost first; empty where none was taken.
using StackView = std::span<const std::uintptr_t>;

/// When something was done, and by whom.
struct Event {
    /// Of the same clock as Record::time_ns; 0 where not known.
    std::uint64_t time_ns = 0;
    /// The operating system's number of the thread; 0 where not known.
    std::uint64_t thread = 0;
    StackView stack = {};
};

/// A view of one mapping. The label's and the stack's memory is its owner's.
struct Mapping {
    /// What the caller asked for, to the byte; not empty.
    IovaRange range = {};
    /// Unmapped bytes that belong to it on each side of its pages; 0 where there is no guard.
    ByteCount guard_before = {};
    ByteCount guard_after = {};
    Allows allows = Allows::read_write;
    std::string_view label = {};
    Event mapped = {};
    /// One of how many mappings is watched so closely; 0: every one.
    std::uint32_t sampled_of = 0;
};

/// A mapping that is no more.
struct PastMapping {
    Mapping mapping = {};
    Event unmapped = {};
    /// How many mappings were undone after it.
    std::uint64_t unmaps_since = 0;
};

/// How often a search compared addresses; what is promised about diagnosis is counted in these.
struct SearchSteps {
    std::uint64_t count = 0;
};

/// The living mappings around an address.
struct Neighbours {
    std::optional<Mapping> at_or_below = {}; ///< the highest start at or below the address
    std::optional<Mapping> above = {};       ///< the lowest start above it
};

/// The past mappings around a range.
struct PastNeighbours {
    /// The mapping undone last among those that covered a byte of the range.
    std::optional<PastMapping> latest = {};
    /// Where there is no `latest`: the mappings that the nearest addresses on each side belong to.
    std::optional<PastMapping> below = {};
    std::optional<PastMapping> above = {};
};

/// The mappings of one domain that live. They never overlap.
template <class T>
concept LiveMappings = requires(const T& live, Iova at, SearchSteps& steps) {
    /// One search, O(log n).
    { live.around(at, steps) } -> std::same_as<Neighbours>;
};

/// The mappings of one domain that were undone, as far back as they are remembered. They overlap
/// where addresses were used again; an address belongs to the one that was undone last.
template <class T>
concept PastMappings = requires(const T& past, IovaRange range, SearchSteps& steps) {
    /// One search, O(log n); `range` is not empty.
    { past.around(range, steps) } -> std::same_as<PastNeighbours>;
};

/// Living mappings as an array that is sorted by start. A view; the array is its owner's.
class SortedMappings {
  public:
    constexpr explicit SortedMappings(std::span<const Mapping> sorted) : sorted_(sorted) {}

    [[nodiscard]] constexpr Neighbours around(Iova at, SearchSteps& steps) const {
        std::size_t low = 0;
        std::size_t high = sorted_.size();
        while (low != high) {
            ++steps.count;
            const std::size_t middle = low + (high - low) / 2;
            if (sorted_[middle].range.start() > at)
                high = middle;
            else
                low = middle + 1;
        }
        Neighbours found;
        if (low != 0)
            found.at_or_below = sorted_[low - 1];
        if (low != sorted_.size())
            found.above = sorted_[low];
        return found;
    }

  private:
    std::span<const Mapping> sorted_;
};

static_assert(LiveMappings<SortedMappings>);

/// Where nothing is remembered.
class NoHistory {
  public:
    [[nodiscard]] static constexpr PastNeighbours around(IovaRange /*range*/,
                                                         SearchSteps& /*steps*/) {
        return {};
    }
};

static_assert(PastMappings<NoHistory>);

} // namespace moat::fault
