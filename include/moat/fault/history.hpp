// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// History: the latest past mappings of a domain: a ring, and an index. It has no lock, and does not
// copy labels and stacks. Diagnosis queries it (mapping.hpp).
#pragma once

#include "moat/fault/mapping.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace moat::fault {

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
