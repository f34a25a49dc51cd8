// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The mappings of a domain that were undone, the newest so many of them: a ring, and an index.
// No lock of its own and no copies of labels and stacks. Diagnosis asks it (mapping.hpp).
#pragma once

#include "moat/fault/mapping.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace moat::fault {

/// To note an unmap is one store into the ring. The index is brought up to date by `catch_up`,
/// which whoever handles a fault calls before it asks, so that its cost stays away from unmap.
///
/// The index paints: it holds, sorted and disjoint, the addresses that were ever mapped, each run
/// with the mapping that was undone there last. So the newest of many mappings that overlapped is
/// found by one search, and a new one adds at most two runs.
///
/// Not thread-safe. Labels and stacks that the views name must outlive their place in the ring.
class History {
  public:
    static constexpr unsigned most_runs = 8;

    /// Remembers the newest `capacity` mappings; 0 counts as 1. Memory is taken as it fills.
    explicit History(std::size_t capacity);

    /// Notes that `mapping` was undone just now; the oldest one is forgotten where the ring is
    /// full. A mapping without bytes is not noted.
    void note(const Mapping& mapping, const Event& unmapped);

    /// Brings the index up to date: O(log n) for each mapping noted since.
    void catch_up();

    /// How many mappings are remembered.
    [[nodiscard]] std::size_t size() const;

    /// The model of PastMappings; the index must be up to date. Nothing for an empty range. Looks
    /// at no more than the first `most_runs` runs of `range`.
    [[nodiscard]] PastNeighbours around(IovaRange range, SearchSteps& steps) const;

    /// Ends the program where the index is not what it promises. For tests.
    void verify() const;

  private:
    struct Entry {
        Mapping mapping;
        Event unmapped;
    };

    /// A run of addresses up to `last`, whose latest mapping is the `sequence`-th ever noted.
    struct Run {
        std::uint64_t last;
        std::uint64_t sequence;
    };

    /// An address that a search looks for, which counts how often it is compared.
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

    /// Makes sure that a run begins at `start`, where a run covers it.
    void split(std::uint64_t start);
    void paint(IovaRange range, std::uint64_t sequence);
    void unpaint(IovaRange range, std::uint64_t sequence);

    std::vector<Entry> ring_;
    /// The ranges of painted entries whose slots were taken, oldest first: to be unpainted. Never
    /// more than `capacity`.
    std::vector<IovaRange> displaced_;
    Runs runs_;
    std::size_t capacity_;
    std::uint64_t noted_ = 0;     ///< the sequence of the next one
    std::uint64_t indexed_ = 0;   ///< all below were painted, or forgotten before they were
    std::uint64_t unpainted_ = 0; ///< the sequence of the first in `displaced_`
};

static_assert(PastMappings<History>);

} // namespace moat::fault
