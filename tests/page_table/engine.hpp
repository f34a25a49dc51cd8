// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine of any format behind one interface, with a test's surroundings: memory that can run
// out, hardware that sets flags, a cache of translations that detects a missing invalidation. The
// suites of this folder run on it for every format and compile quickly; engines_*.cpp compile the
// engine itself once a format.
#pragma once

#include "moat/core/text.hpp"
#include "moat/page_table/attributes.hpp"
#include "moat/page_table/detail/cut.hpp"
#include "moat/page_table/detail/map.hpp"
#include "moat/page_table/detail/protect.hpp"
#include "moat/page_table/detail/unmap.hpp"
#include "moat/page_table/detail/walk.hpp"
#include "moat/page_table/format.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

namespace moat::tests {

/// The properties of a format that a suite needs.
struct FormatFacts {
    std::string name;
    unsigned granule_lg2;
    unsigned fewest_levels;
    unsigned most_levels;
    unsigned input_bits;
    unsigned output_bits;
    bool sign_extended;
    FormatCapabilities capabilities;
    std::vector<unsigned> entry_lg2;      ///< by level
    std::vector<unsigned> leaf_sizes_lg2; ///< smallest first; only those that fit the output bits
    Word address_step; ///< what a leaf's entry gains with its memory's next granule
    std::function<bool(Attributes)> representable;
    std::function<Word(Attributes)> attribute_word;

    [[nodiscard]] std::uint64_t page() const { return bit(granule_lg2); }

    /// The size that an entry of the second level covers.
    [[nodiscard]] std::uint64_t block() const { return bit(entry_lg2[1]); }

    [[nodiscard]] bool has_leaf(std::uint64_t size) const;
    /// The largest of the leaf sizes that are smaller than `size`.
    [[nodiscard]] std::uint64_t next_smaller_leaf(std::uint64_t size) const;
};

/// The translation of one address.
struct Found {
    std::uint64_t physical;
    std::uint64_t leaf_size;
    Attributes attributes;
};

/// A piece of a tree's mappings: consecutive addresses to consecutive memory, one set of attributes
/// without accessed and dirty.
struct Piece {
    std::uint64_t last;
    std::uint64_t physical;
    Attributes attributes;

    friend bool operator==(const Piece&, const Piece&) = default;
    friend std::ostream& operator<<(std::ostream& out, const Piece& piece);
};

/// The mappings of a tree, by first address; neighbours that continue each other are one.
using Mappings = std::map<std::uint64_t, Piece>;

void append_merged(Mappings& mappings, std::uint64_t start, const Piece& piece);

/// One line of a walk: 'L'eaf, 'T'able or '-' for a hole.
struct Visit {
    char what;
    std::uint64_t start;
    std::uint64_t size;

    friend bool operator==(const Visit&, const Visit&) = default;
};

struct FlagReport {
    std::uint64_t start;
    std::uint64_t size;
    Attributes had;
};

class Engine {
  public:
    virtual ~Engine() = default;

    // Each opens an edit, does one thing, finishes it, runs deferred frees, and fails the test if a
    // cached translation is no longer true.
    virtual Result<void> map(std::uint64_t start, std::uint64_t size, std::uint64_t physical,
                             Attributes attributes = read_write, MapOptions options = {}) = 0;
    virtual std::uint64_t map_pages(std::uint64_t start, const std::vector<std::uint64_t>& memory,
                                    Attributes attributes = read_write) = 0;
    virtual Result<Unmapped> unmap(std::uint64_t start, std::uint64_t size,
                                   UnmapOptions options = {}) = 0;
    virtual Result<Protected> protect(std::uint64_t start, std::uint64_t size,
                                      Attributes attributes, ProtectOptions options = {}) = 0;
    virtual Result<std::uint64_t> split(std::uint64_t start, std::uint64_t size,
                                        Break breaking = Break::allowed) = 0;
    virtual Result<void> fold(std::uint64_t start, std::uint64_t size,
                              Break breaking = Break::allowed) = 0;
    virtual Result<std::vector<FlagReport>> clear_flags(std::uint64_t start, std::uint64_t size,
                                                        Attributes which) = 0;
    /// Error: unsupported if the format's trees do not grow.
    virtual Result<void> grow() = 0;

    /// Stores what it found in the cache of translations.
    virtual std::optional<Found> translate(std::uint64_t address) = 0;
    /// `control` answers each visit; without one the walk continues.
    virtual Result<WalkEnd> walk(std::uint64_t start, std::uint64_t size,
                                 std::vector<Visit>& visits,
                                 const std::function<WalkControl(const Visit&)>& control = {}) = 0;
    /// All mappings, after a check of the whole tree: leaves are aligned, groups are whole, and
    /// there are as many tables as allocations.
    virtual Mappings mappings() = 0;

    /// Acts as hardware when the leaf at `address` is used: sets the flags in the one entry that
    /// translates it, found by a walk that shares no code with the engine's.
    virtual void hardware_uses(std::uint64_t address, Attributes flags) = 0;
    /// The entry that hardware reads last for `address`; in a group, the one for that address.
    [[nodiscard]] virtual Word& entry_of(std::uint64_t address) = 0;
    [[nodiscard]] virtual PhysicalAddress root() const = 0;

    /// After `allocations` more, each fails; nothing: all succeed.
    virtual void allow_allocations(std::optional<std::uint64_t> allocations) = 0;
    [[nodiscard]] virtual std::uint64_t tables_in_use() const = 0;
    [[nodiscard]] virtual unsigned levels() const = 0;

    /// The size of the leaf at `address`; 0 at a hole.
    std::uint64_t leaf_size(std::uint64_t address) {
        const auto found = translate(address);
        return found ? found->leaf_size : 0;
    }

    std::uint64_t invalidations = 0;
    /// Called with [start, last] inside each invalidation.
    std::function<void(std::uint64_t start, std::uint64_t last)> during_invalidation;
};

/// Memory for the tables of an engine, aligned to the largest of them. Without bytes the engine
/// allocates its own.
struct TableMemory {
    std::span<std::byte> bytes;
    PhysicalAddress physical;
};

/// A format of the list in formats.hpp, as the parameter of a suite.
struct FormatUnderTest {
    FormatFacts facts;
    /// A tree of `levels` levels.
    std::function<std::unique_ptr<Engine>(unsigned levels, const TableMemory&)> make;

    [[nodiscard]] std::unique_ptr<Engine> engine(const TableMemory& memory = {}) const {
        return make(facts.most_levels, memory);
    }

    friend std::ostream& operator<<(std::ostream& out, const FormatUnderTest& format) {
        return out << format.facts.name;
    }
};

std::vector<FormatUnderTest> cpu_formats();
std::vector<FormatUnderTest> iommu_formats();
std::vector<FormatUnderTest> arm_formats();
std::vector<FormatUnderTest> all_formats();

} // namespace moat::tests

/// Runs a suite (a TestWithParam of FormatUnderTest) for every format.
#define MOAT_FOR_EVERY_FORMAT(Suite)                                                               \
    INSTANTIATE_TEST_SUITE_P(Format, Suite, ::testing::ValuesIn(::moat::tests::all_formats()),     \
                             [](const auto& parameter) { return parameter.param.facts.name; })
