// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A page table in a witness's memory, and the comparison of the witness's results with `translate`.
// witness_suite.hpp has the scenarios.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/text.hpp"
#include "moat/page_table/edit.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/serial.hpp"

#include "witness.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace moat::tests {

/// The expected result of both kinds of access to an address.
struct Expectation {
    std::uint64_t address;
    Answer read;
    Answer write;
};

inline std::string to_text(const Answer& answer) {
    return answer ? hexadecimal(*answer) : "a page fault";
}

/// One piece of the mappings, to choose queries and changes from.
struct Mapped {
    std::uint64_t start;
    std::uint64_t bytes;
};

template <Witness W>
class WitnessedTable {
  public:
    using F = typename W::Format;
    using Input = typename F::Input;
    using Types = Tree<F, SerialSync, TablePool<SerialSync>>;

    WitnessedTable(W& witness, std::uint64_t seed)
        : random(seed), witness_(witness), headers_(witness.tables().bytes >> F::granule_lg2),
          pool_({witness.tables().host, witness.tables().bytes},
                PhysicalAddress(witness.tables().physical), headers_, F::granule_lg2),
          table_(*PageTable<Types>::create(pool_, F::most_levels)) {
        if constexpr (W::support) {
            EXPECT_TRUE(map(W::support->start, W::support->bytes, W::support->physical,
                            W::support->attributes));
        }
    }

    /// Runs `change(edit)` and finishes the edit. The witness caches nothing between queries, so no
    /// invalidation is necessary.
    template <class Change>
    auto edit(Change&& change) {
        auto nothing = [](const InvalidationRequest<Input>&) {};
        auto open = table_.edit(nothing);
        auto result = change(open);
        open.finish();
        return result;
    }

    /// Return: false if the range is already mapped.
    bool map(std::uint64_t start, std::uint64_t bytes, std::uint64_t physical,
             Attributes attributes) {
        const Result<void> result = edit([&](auto& open) {
            return open.map(Input(start), ByteCount(bytes), PhysicalAddress(physical), attributes,
                            {.largest_leaf_lg2 = witness_.largest_leaf_lg2()});
        });
        EXPECT_TRUE(result || result.error().code() == ErrorCode::overlap)
            << to_string(result.error());
        return result.has_value();
    }

    /// Maps a leaf of 2^bytes_lg2 bytes in an unmapped place. Return: its address.
    std::uint64_t map_somewhere(unsigned bytes_lg2, Attributes attributes) {
        for (;;) {
            const std::uint64_t start = random_start(bytes_lg2);
            if (map(start, bit(bytes_lg2), random_physical(bytes_lg2), attributes))
                return start;
        }
    }

    [[nodiscard]] std::optional<Translation<F>> translate(std::uint64_t address) const {
        return table_.reader().translate(Input(address));
    }

    /// A multiple of 2^bytes_lg2 in either half, away from the halves' ends and from the witness's
    /// support pages.
    std::uint64_t random_start(unsigned bytes_lg2) {
        constexpr unsigned bits = input_bits<F>() - (F::sign_extended ? 1 : 0);
        const std::uint64_t lower = bit(bits - 1) | (random() & low_bits(bits - 2));
        const bool upper = F::sign_extended && (random() & 1) != 0;
        return align_down(upper ? ~lower : lower, bytes_lg2);
    }

    /// A multiple of 2^bytes_lg2 where the witness has no memory for that many bytes.
    std::uint64_t random_physical(unsigned bytes_lg2) {
        const unsigned bits = witness_.physical_bits();
        return align_down(bit(bits - 1) | (random() & low_bits(bits - 2)), bytes_lg2);
    }

    /// Read-only, writable and, if the format has it, write-only.
    Attributes random_permissions() {
        constexpr Attributes choices[] = {read_only, read_write, Attributes::write};
        const Attributes choice = choices[random() % 3];
        return F::representable(choice) ? choice : read_write;
    }

    /// The translation of each address.
    [[nodiscard]] std::vector<Expectation>
    expectations(const std::vector<std::uint64_t>& addresses) const {
        std::vector<Expectation> all;
        for (const std::uint64_t address : addresses) {
            Expectation expected{.address = address, .read = {}, .write = {}};
            if (const auto found = translate(address)) {
                if (has(found->attributes(), Attributes::read))
                    expected.read = found->physical().value();
                if (has(found->attributes(), Attributes::write))
                    expected.write = found->physical().value();
            }
            all.push_back(expected);
        }
        return all;
    }

    /// Queries the witness; a failure lists the unexpected results.
    [[nodiscard]] ::testing::AssertionResult agrees(const std::vector<Expectation>& expectations) {
        std::vector<Probe> probes;
        for (const Expectation& each : expectations) {
            probes.push_back({each.address, Access::read});
            probes.push_back({each.address, Access::write});
        }
        const std::vector<Answer> answers = witness_.ask(table_.root().table, probes);
        std::string wrong;
        for (std::size_t i = 0; i != probes.size(); ++i) {
            const bool read = probes[i].access == Access::read;
            const Expectation& each = expectations[i / 2];
            const Answer& expected = read ? each.read : each.write;
            if (answers[i] != expected)
                wrong += (read ? "\na read of " : "\na write to ") + hexadecimal(each.address) +
                         ": " + to_text(answers[i]) + ", translate says " + to_text(expected);
        }
        return wrong.empty() ? ::testing::AssertionSuccess()
                             : ::testing::AssertionFailure() << wrong;
    }

    void clear(std::uint64_t start, std::uint64_t bytes, Attributes flags) {
        EXPECT_TRUE(edit([&](auto& open) {
            return open.clear_accessed_dirty(Input(start), ByteCount(bytes), flags,
                                             [](Input, ByteCount, Attributes) {});
        }));
    }

    void make(std::uint64_t address, Access access) {
        const Probe probe{address, access};
        EXPECT_TRUE(witness_.ask(table_.root().table, {&probe, 1})[0]);
    }

    /// The entry, in the witness's memory, that translates `address`; in a group, the one for that
    /// address.
    [[nodiscard]] Word& entry_of(std::uint64_t address) {
        return entry_below<F::most_levels - 1>(table_.root().table, address);
    }

    /// Logarithms of the leaf sizes that both the format and the witness support.
    [[nodiscard]] std::vector<unsigned> leaf_sizes_lg2() const {
        std::vector<unsigned> sizes;
        for (unsigned level = 0; level != F::most_levels; ++level)
            for (unsigned group = 0; group != 32; ++group)
                if ((F::leaf_groups(level) & bit(group)) != 0 &&
                    entry_lg2<F>(level) + group <= witness_.largest_leaf_lg2())
                    sizes.push_back(entry_lg2<F>(level) + group);
        return sizes;
    }

    [[nodiscard]] unsigned physical_bits() const { return witness_.physical_bits(); }

    std::mt19937_64 random;

  private:
    template <unsigned L>
    Word& entry_below(PhysicalAddress table, std::uint64_t address) {
        Word& entry = pool_.words(table)[entry_index<F, L>(address)];
        if constexpr (L > 0)
            if (F::template kind<L>(entry) == EntryKind::table)
                return entry_below<L - 1>(PhysicalAddress(F::template table_physical<L>(entry)),
                                          address);
        return entry;
    }

    W& witness_;
    std::vector<TableHeader> headers_;
    TablePool<SerialSync> pool_;
    PageTable<Types> table_;
};

} // namespace moat::tests
