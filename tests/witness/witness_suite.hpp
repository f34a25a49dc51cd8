// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The questions for every witness: leaves of every size, holes, read-only leaves; random layouts
// after unmap, split, protect and fold; corrupted tables. Accessed and dirty:
// flag_witness_suite.hpp. A test program instantiates the suite with its witnesses.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/text.hpp"

#include "witness.hpp"
#include "witnessed_table.hpp"

#include <algorithm>
#include <cstdint>
#include <gtest/gtest.h>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

namespace moat::tests {

template <class W>
class WitnessTest : public ::testing::Test {
  public:
    static constexpr std::uint64_t seed = 20260307;

    void SetUp() override {
        auto opened = W::open();
        if (!opened)
            GTEST_SKIP() << "SKIPPED: " << opened.error();
        witness = std::move(*opened);
        using F = typename W::Format;
        if (witness->largest_leaf_lg2() < entry_lg2<F>(highest_leaf_level<F>()))
            std::cout
                << "Not asked about, since the witness does not know them: leaves of more than "
                << ByteCount(bit(witness->largest_leaf_lg2())) << '\n';
    }

    std::unique_ptr<W> witness;
};

TYPED_TEST_SUITE_P(WitnessTest);

/// Both ends of a mapping, the bytes beside them, and one byte inside.
template <class Random>
void append_probes(std::vector<std::uint64_t>& addresses, const Mapped& mapped, Random& random) {
    addresses.push_back(mapped.start - 1);
    addresses.push_back(mapped.start);
    addresses.push_back(mapped.start + random() % mapped.bytes);
    addresses.push_back(mapped.start + (mapped.bytes - 1));
    addresses.push_back(mapped.start + mapped.bytes);
}

/// The bit of an entry that holds bit `physical_bit` of a physical address.
template <PageTableFormat F>
constexpr Word address_bit(unsigned physical_bit) {
    return F::template entry_step<0>(0) << (physical_bit - F::granule_lg2);
}

/// The witness detects a corrupted entry, and agrees with `translate` on intact ones.
template <class Table>
void expect_agreement(Table& table, const std::vector<std::uint64_t>& addresses) {
    using F = typename Table::F;
    const std::vector<Expectation> expectations = table.expectations(addresses);
    const auto mapped = std::ranges::find_if(
        expectations, [](const Expectation& each) { return each.read || each.write; });
    ASSERT_NE(mapped, expectations.end()) << "something is mapped, to be corrupted";
    const unsigned leaf_lg2 = table.translate(mapped->address)->leaf_lg2();
    Word& entry = table.entry_of(mapped->address);
    entry ^= address_bit<F>(leaf_lg2);
    EXPECT_FALSE(table.agrees(expectations));
    entry ^= address_bit<F>(leaf_lg2);
    EXPECT_TRUE(table.agrees(expectations));
}

TYPED_TEST_P(WitnessTest, leaf_of_every_size_read_only_and_writable) {
    SCOPED_TRACE("seed " + std::to_string(this->seed));
    WitnessedTable<TypeParam> table(*this->witness, this->seed);
    std::vector<std::uint64_t> addresses;
    for (const unsigned size_lg2 : table.leaf_sizes_lg2())
        for (const Attributes attributes : {read_only, read_write}) {
            const std::uint64_t start = table.map_somewhere(size_lg2, attributes);
            EXPECT_EQ(table.translate(start)->leaf_lg2(), size_lg2);
            append_probes(addresses, {start, bit(size_lg2)}, table.random);
        }
    for (unsigned i = 0; i != 32; ++i)
        addresses.push_back(table.random_start(0));
    expect_agreement(table, addresses);
}

/// Maps a leaf of some size and up to 40 pages more; or only such pages, at an address that larger
/// leaves may cross.
template <class Table>
void map_something(Table& table, std::vector<Mapped>& mapped) {
    using F = typename Table::F;
    const auto sizes = table.leaf_sizes_lg2();
    const unsigned size_lg2 = sizes[table.random() % sizes.size()];
    const std::uint64_t pages = (1 + table.random() % 40) << F::granule_lg2;
    const bool large = (table.random() & 1) != 0;
    const unsigned aligned = large ? size_lg2 : F::granule_lg2;
    const std::uint64_t start = table.random_start(aligned);
    const std::uint64_t bytes = large ? bit(size_lg2) + pages : pages;
    if (table.map(start, bytes, table.random_physical(aligned), table.random_permissions()))
        mapped.push_back({start, bytes});
}

/// Unmaps, protects, splits or folds a part of an existing mapping.
template <class Table>
void change_something(Table& table, const std::vector<Mapped>& mapped) {
    using F = typename Table::F;
    using Input = typename F::Input;
    constexpr PartialLeaf split = PartialLeaf::split;
    constexpr Break allowed = Break::allowed;
    const Mapped& whole = mapped[table.random() % mapped.size()];
    const std::uint64_t pages = whole.bytes >> F::granule_lg2;
    const std::uint64_t skip = table.random() % pages;
    const Input start(whole.start + (skip << F::granule_lg2));
    const ByteCount bytes((1 + table.random() % (pages - skip)) << F::granule_lg2);
    const unsigned choice = table.random() % 4;
    const Attributes attributes = table.random_permissions();
    table.edit([&](auto& open) {
        if (choice == 0) {
            EXPECT_TRUE(open.unmap(start, bytes, {.partial = split, .breaking = allowed}));
        } else if (choice == 1) {
            EXPECT_TRUE(open.split(start, bytes, allowed));
        } else {
            EXPECT_TRUE(
                open.protect(start, bytes, attributes, {.partial = split, .breaking = allowed}));
        }
        return choice;
    });
}

TYPED_TEST_P(WitnessTest, random_layouts_after_every_kind_of_edit) {
    for (std::uint64_t round = 0; round != 4; ++round) {
        SCOPED_TRACE("seed " + std::to_string(this->seed + round));
        WitnessedTable<TypeParam> table(*this->witness, this->seed + round);
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

TYPED_TEST_P(WitnessTest, fold_and_split_translate_alike) {
    using F = typename TypeParam::Format;
    using Input = typename F::Input;
    SCOPED_TRACE("seed " + std::to_string(this->seed));
    WitnessedTable<TypeParam> table(*this->witness, this->seed);
    const unsigned large_lg2 = entry_lg2<F>(1);
    const Input start(table.random_start(large_lg2));
    const ByteCount bytes(bit(large_lg2));
    const PhysicalAddress physical(table.random_physical(large_lg2));
    std::vector<std::uint64_t> addresses;
    append_probes(addresses, {start.value(), bytes.value()}, table.random);
    for (unsigned i = 0; i != 16; ++i)
        addresses.push_back(start.value() + table.random() % bytes.value());

    table.edit([&](auto& open) {
        return open.map(start, bytes, physical, read_only, {.largest_leaf_lg2 = F::granule_lg2});
    });
    EXPECT_EQ(table.translate(start.value())->leaf_lg2(), F::granule_lg2);
    expect_agreement(table, addresses);

    EXPECT_TRUE(table.edit([&](auto& open) { return open.fold(start, bytes, Break::allowed); }));
    EXPECT_EQ(table.translate(start.value())->leaf_lg2(), large_lg2);
    expect_agreement(table, addresses);

    const ByteCount page(bit(F::granule_lg2));
    EXPECT_TRUE(
        table.edit([&](auto& open) { return open.split(start + page, page, Break::allowed); }));
    EXPECT_EQ(table.translate(start.value())->leaf_lg2(), F::granule_lg2);
    expect_agreement(table, addresses);
}

/// Every bit of the physical address, the permission to write, and the entry as a whole.
TYPED_TEST_P(WitnessTest, corrupted_entry_of_every_size_is_noticed) {
    using F = typename TypeParam::Format;
    SCOPED_TRACE("seed " + std::to_string(this->seed));
    WitnessedTable<TypeParam> table(*this->witness, this->seed);
    const Word write = F::attribute_word(read_only) ^ F::attribute_word(read_write);
    for (const unsigned size_lg2 : table.leaf_sizes_lg2()) {
        const std::uint64_t start = table.map_somewhere(size_lg2, read_write);
        const auto expectations =
            table.expectations({start + (table.random() & low_bits(size_lg2))});
        Word& entry = table.entry_of(expectations[0].address);
        const Word good = entry;
        std::vector<Word> bad = {0, good ^ write};
        for (unsigned each = size_lg2; each + 1 < table.physical_bits(); ++each)
            bad.push_back(good ^ address_bit<F>(each));
        for (const Word word : bad) {
            entry = word;
            EXPECT_FALSE(table.agrees(expectations))
                << hexadecimal(good) << " became " << hexadecimal(word);
        }
        entry = good;
        EXPECT_TRUE(table.agrees(expectations));
    }
}

REGISTER_TYPED_TEST_SUITE_P(WitnessTest, leaf_of_every_size_read_only_and_writable,
                            random_layouts_after_every_kind_of_edit, fold_and_split_translate_alike,
                            corrupted_entry_of_every_size_is_noticed);

} // namespace moat::tests
