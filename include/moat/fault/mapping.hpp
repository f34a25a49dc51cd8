// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Views of mappings, living and past, and their owners, for diagnosis: concepts, a sorted array,
// and History, a ring of past mappings with an index.
#pragma once

#include "moat/core/range.hpp"
#include "moat/fault/record.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace moat::fault {

/// What a device may do with a mapping.
enum class Allows : std::uint8_t { nothing, read, write, read_write };

[[nodiscard]] constexpr std::string_view name(Allows allows) {
    constexpr std::array<std::string_view, 4> names = {"nothing", "read", "write", "read-write"};
    return names[static_cast<std::size_t>(allows)];
}

/// Permits an unknown access only if it permits every access.
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

/// Return addresses, innermost first; may be empty.
using StackView = std::span<const std::uintptr_t>;

/// The time, thread and stack of a call.
struct Event {
    /// Of the same clock as Record::time_ns; 0 if unknown.
    std::uint64_t time_ns = 0;
    /// The operating system's number of the thread; 0 if unknown.
    std::uint64_t thread = 0;
    StackView stack = {};
};

/// A view of one mapping. Its owner keeps the memory of label and stack.
struct Mapping {
    /// The range that the caller mapped, to the byte; not empty.
    IovaRange range = {};
    /// Unmapped bytes on each side of its pages that belong to it; 0: no guard.
    ByteCount guard_before = {};
    ByteCount guard_after = {};
    Allows allows = Allows::read_write;
    std::string_view label = {};
    Event mapped = {};
    /// One of so many mappings is sampled; 0: not sampled.
    std::uint32_t sampled_of = 0;
};

/// A mapping that was unmapped.
struct PastMapping {
    Mapping mapping = {};
    Event unmapped = {};
    /// How many mappings were unmapped after it.
    std::uint64_t unmaps_since = 0;
};

/// How many addresses a search compared; the bounds of diagnosis are counts of these.
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
    /// The latest past mapping that covered a byte of the range.
    std::optional<PastMapping> latest = {};
    /// Without `latest`: the mappings of the nearest addresses on each side.
    std::optional<PastMapping> below = {};
    std::optional<PastMapping> above = {};
};

/// The living mappings of one domain. They do not overlap.
template <class T>
concept LiveMappings = requires(const T& live, Iova at, SearchSteps& steps) {
    /// One search, O(log n).
    { live.around(at, steps) } -> std::same_as<Neighbours>;
};

/// The past mappings of one domain, as far as they are kept. They overlap where addresses were
/// reused; an address belongs to the latest one.
template <class T>
concept PastMappings = requires(const T& past, IovaRange range, SearchSteps& steps) {
    /// One search, O(log n); `range` is not empty.
    { past.around(range, steps) } -> std::same_as<PastNeighbours>;
};

/// Living mappings in an array sorted by start. A view.
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

/// No past mappings.
class NoHistory {
  public:
    [[nodiscard]] static constexpr PastNeighbours around(IovaRange /*range*/,
                                                         SearchSteps& /*steps*/) {
        return {};
    }
};

static_assert(PastMappings<NoHistory>);

/// Adding a past mapping is one store into the ring. `catch_up` updates the index; a fault handler
/// calls it before it queries, so unmapping does not pay for it.
///
/// The index holds the addresses that were ever mapped, as sorted, disjoint runs, each with the
/// latest mapping there. So one search finds the newest of many overlapping mappings, and adding a
/// mapping adds at most two runs.
///
/// Not thread-safe. Labels and stacks outlive their entry in the ring.
class History {
  public:
    static constexpr unsigned most_runs = 8;

    /// Keeps the newest `capacity` mappings; 0 counts as 1. Allocates as it fills.
    explicit History(std::size_t capacity);

    /// Adds `mapping`, which was just unmapped; drops the oldest one if the ring is full. Ignores a
    /// mapping without bytes.
    void note(const Mapping& mapping, const Event& unmapped);

    /// Updates the index: O(log n) per mapping added since.
    void catch_up();

    /// How many mappings it holds.
    [[nodiscard]] std::size_t size() const;

    /// Models PastMappings; the index is up to date. Returns nothing for an empty range. Looks at
    /// no more than the first `most_runs` runs of `range`.
    [[nodiscard]] PastNeighbours around(IovaRange range, SearchSteps& steps) const;

    /// Ends the program if the index is inconsistent. For tests.
    void verify() const;

  private:
    struct Entry {
        Mapping mapping;
        Event unmapped;
    };

    /// A run of addresses up to `last`; the `sequence`-th mapping ever added was its latest.
    struct Run {
        std::uint64_t last;
        std::uint64_t sequence;
    };

    /// The address of a search; counts its comparisons.
    struct Probe {
        std::uint64_t at;
        SearchSteps* steps;
    };

    struct Less {
        using is_transparent = void;

        bool operator()(std::uint64_t a, std::uint64_t b) const { return a < b; }

        bool operator()(const Probe& a, std::uint64_t b) const {
            ++a.steps->count;
            return a.at < b;
        }

        bool operator()(std::uint64_t a, const Probe& b) const {
            ++b.steps->count;
            return a < b.at;
        }
    };

    using Runs = std::map<std::uint64_t, Run, Less>;

    [[nodiscard]] std::uint64_t oldest() const;
    [[nodiscard]] const Entry& entry(std::uint64_t sequence) const;
    [[nodiscard]] PastMapping past(std::uint64_t sequence) const;

    /// Splits the run that covers `start`, if any, so that one begins there.
    void split(std::uint64_t start);
    void paint(IovaRange range, std::uint64_t sequence);
    void unpaint(IovaRange range, std::uint64_t sequence);

    std::vector<Entry> ring_;
    /// The ranges of indexed entries whose slots were reused, oldest first: to be removed from the
    /// index. At most `capacity`.
    std::vector<IovaRange> displaced_;
    Runs runs_;
    std::size_t capacity_;
    std::uint64_t noted_ = 0;     ///< the sequence of the next mapping
    std::uint64_t indexed_ = 0;   ///< all below were indexed, or dropped before
    std::uint64_t unpainted_ = 0; ///< the sequence of the first one in `displaced_`
};

static_assert(PastMappings<History>);

} // namespace moat::fault
