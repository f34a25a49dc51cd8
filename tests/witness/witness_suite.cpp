// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The questions for every witness: leaves of every size, holes, read-only leaves; random layouts
// after unmap, split, protect and fold; corrupted tables. For those that update flags: accessed and
// dirty.
#include "witness_suite.hpp"

#include "moat/core/bits.hpp"
#include "moat/core/text.hpp"

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <random>
#include <string>
#include <vector>

namespace moat::tests {

void WitnessTest::SetUp() {
    auto opened = GetParam().open();
    if (!opened)
        GTEST_SKIP() << "SKIPPED: " << opened.error();
    witness = std::move(*opened);
    if (witness->largest_leaf_lg2() < GetParam().format.facts.leaf_sizes_lg2.back())
        std::cout << "Not asked about, since the witness does not know them: leaves of more than "
                  << ByteCount(bit(witness->largest_leaf_lg2())) << '\n';
}

namespace {

/// Both ends of a mapping, the bytes beside them, and one byte inside.
void append_probes(std::vector<std::uint64_t>& addresses, const Mapped& mapped,
                   std::mt19937_64& random) {
    addresses.push_back(mapped.start - 1);
    addresses.push_back(mapped.start);
    addresses.push_back(mapped.start + random() % mapped.bytes);
    addresses.push_back(mapped.start + (mapped.bytes - 1));
    addresses.push_back(mapped.start + mapped.bytes);
}

/// The witness detects a corrupted entry, and agrees with `translate` on intact ones.
void expect_agreement(WitnessedTable& table, const std::vector<std::uint64_t>& addresses) {
    const std::vector<Expectation> expectations = table.expectations(addresses);
    const auto mapped = std::ranges::find_if(
        expectations, [](const Expectation& each) { return each.read || each.write; });
    ASSERT_NE(mapped, expectations.end()) << "something is mapped, to be corrupted";
    const Word lowest = table.address_bit(table.leaf_lg2(mapped->address));
    Word& entry = table.engine().entry_of(mapped->address);
    entry ^= lowest;
    EXPECT_FALSE(table.agrees(expectations));
    entry ^= lowest;
    EXPECT_TRUE(table.agrees(expectations));
}

TEST_P(WitnessTest, leaf_of_every_size_read_only_and_writable) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    WitnessedTable table = this->table();
    std::vector<std::uint64_t> addresses;
    for (const unsigned size_lg2 : table.leaf_sizes_lg2())
        for (const Attributes attributes : {read_only, read_write}) {
            const std::uint64_t start = table.map_somewhere(size_lg2, attributes);
            EXPECT_EQ(table.leaf_lg2(start), size_lg2);
            append_probes(addresses, {start, bit(size_lg2)}, table.random);
        }
    for (unsigned i = 0; i != 32; ++i)
        addresses.push_back(table.random_start(0));
    expect_agreement(table, addresses);
}

/// Maps a leaf of some size and up to 40 pages more; or only such pages, at an address that larger
/// leaves may cross.
void map_something(WitnessedTable& table, std::vector<Mapped>& mapped) {
    const unsigned granule_lg2 = table.facts.granule_lg2;
    const auto sizes = table.leaf_sizes_lg2();
    const unsigned size_lg2 = sizes[table.random() % sizes.size()];
    const std::uint64_t pages = (1 + table.random() % 40) << granule_lg2;
    const bool large = (table.random() & 1) != 0;
    const unsigned aligned = large ? size_lg2 : granule_lg2;
    const std::uint64_t start = table.random_start(aligned);
    const std::uint64_t bytes = large ? bit(size_lg2) + pages : pages;
    if (table.map(start, bytes, table.random_physical(aligned), table.random_permissions()))
        mapped.push_back({start, bytes});
}

/// Unmaps, protects, splits or folds a part of an existing mapping.
void change_something(WitnessedTable& table, const std::vector<Mapped>& mapped) {
    const unsigned granule_lg2 = table.facts.granule_lg2;
    const Mapped& whole = mapped[table.random() % mapped.size()];
    const std::uint64_t pages = whole.bytes >> granule_lg2;
    const std::uint64_t skip = table.random() % pages;
    const std::uint64_t start = whole.start + (skip << granule_lg2);
    const std::uint64_t bytes = (1 + table.random() % (pages - skip)) << granule_lg2;
    const unsigned choice = table.random() % 4;
    const Attributes attributes = table.random_permissions();
    constexpr PartialLeaf split = PartialLeaf::split;
    constexpr Break allowed = Break::allowed;
    if (choice == 0) {
        EXPECT_TRUE(table.engine().unmap(start, bytes, {.partial = split, .breaking = allowed}));
    } else if (choice == 1) {
        EXPECT_TRUE(table.engine().split(start, bytes, allowed));
    } else {
        EXPECT_TRUE(table.engine().protect(start, bytes, attributes,
                                           {.partial = split, .breaking = allowed}));
    }
}

TEST_P(WitnessTest, random_layouts_after_every_kind_of_edit) {
    for (std::uint64_t round = 0; round != 4; ++round) {
        SCOPED_TRACE("seed " + std::to_string(seed + round));
        WitnessedTable table = this->table(seed + round);
        std::vector<Mapped> mapped;
        while (mapped.size() != 16)
            map_something(table, mapped);
        for (unsigned step = 0; step != 4; ++step) {
            std::vector<std::uint64_t> addresses;
            for (const Mapped& each : mapped)
                append_probes(addresses, each, table.random);
            expect_agreement(table, addresses);
            for (unsigned i = 0; i != 12; ++i)
                change_something(table, mapped);
        }
    }
}

TEST_P(WitnessTest, fold_and_split_translate_alike) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    WitnessedTable table = this->table();
    const unsigned granule_lg2 = table.facts.granule_lg2;
    const unsigned large_lg2 = table.facts.entry_lg2[1];
    const std::uint64_t bytes = bit(large_lg2);
    const std::uint64_t start = table.random_start(large_lg2);
    const std::uint64_t physical = table.random_physical(large_lg2);
    std::vector<std::uint64_t> addresses;
    append_probes(addresses, {start, bytes}, table.random);
    for (unsigned i = 0; i != 16; ++i)
        addresses.push_back(start + table.random() % bytes);

    EXPECT_TRUE(
        table.engine().map(start, bytes, physical, read_only, {.largest_leaf_lg2 = granule_lg2}));
    EXPECT_EQ(table.leaf_lg2(start), granule_lg2);
    expect_agreement(table, addresses);

    EXPECT_TRUE(table.engine().fold(start, bytes, Break::allowed));
    EXPECT_EQ(table.leaf_lg2(start), large_lg2);
    expect_agreement(table, addresses);

    const std::uint64_t page = bit(granule_lg2);
    EXPECT_TRUE(table.engine().split(start + page, page, Break::allowed));
    EXPECT_EQ(table.leaf_lg2(start), granule_lg2);
    expect_agreement(table, addresses);
}

/// Every bit of the physical address, the permission to write, and the entry as a whole.
TEST_P(WitnessTest, corrupted_entry_of_every_size_is_noticed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    WitnessedTable table = this->table();
    const FormatFacts& facts = table.facts;
    const Word write = facts.attribute_word(read_only) ^ facts.attribute_word(read_write);
    for (const unsigned size_lg2 : table.leaf_sizes_lg2()) {
        const std::uint64_t start = table.map_somewhere(size_lg2, read_write);
        const auto expectations =
            table.expectations({start + (table.random() & low_bits(size_lg2))});
        Word& entry = table.engine().entry_of(expectations[0].address);
        const Word good = entry;
        std::vector<Word> bad = {0, good ^ write};
        for (unsigned each = size_lg2; each + 1 < table.physical_bits(); ++each)
            bad.push_back(good ^ table.address_bit(each));
        for (const Word word : bad) {
            entry = word;
            EXPECT_FALSE(table.agrees(expectations))
                << hexadecimal(good) << " became " << hexadecimal(word);
        }
        entry = good;
        EXPECT_TRUE(table.agrees(expectations));
    }
}

TEST_P(FlagWitnessTest, accessed_and_dirty_are_set_by_accesses_and_stay_cleared_without) {
    ASSERT_EQ(GetParam().format.facts.capabilities.dirty, FlagUpdate::hardware);
    SCOPED_TRACE("seed " + std::to_string(seed));
    WitnessedTable table = this->table();
    for (const unsigned size_lg2 : table.leaf_sizes_lg2()) {
        const std::uint64_t start = table.map_somewhere(size_lg2, read_write);
        const auto flags = [&] { return table.translate(start)->attributes & accessed_and_dirty; };
        EXPECT_EQ(flags(), Attributes::none);
        table.make(start, Access::read);
        EXPECT_EQ(flags(), Attributes::accessed);
        table.make(start, Access::write);
        EXPECT_EQ(flags(), accessed_and_dirty);

        EXPECT_TRUE(table.engine().clear_flags(start, bit(size_lg2), Attributes::dirty));
        EXPECT_EQ(flags(), Attributes::accessed);
        table.make(start, Access::read);
        EXPECT_EQ(flags(), Attributes::accessed);
        table.make(start, Access::write);
        EXPECT_EQ(flags(), accessed_and_dirty);
    }
}

} // namespace

} // namespace moat::tests
