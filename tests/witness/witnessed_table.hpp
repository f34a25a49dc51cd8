// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A page table in a witness's memory, and the comparison of the witness's results with `translate`.
// witness_suite.cpp has the scenarios.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/text.hpp"

#include "witness.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <memory>
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

class WitnessedTable {
  public:
    WitnessedTable(const FormatUnderTest& format, Witness& witness, std::uint64_t seed)
        : random(seed), facts(format.facts), witness_(witness),
          engine_(format.engine(memory_of(witness.tables()))) {
        if (const auto pages = witness.support()) {
            EXPECT_TRUE(map(pages->start, pages->bytes, pages->physical, pages->attributes));
        }
    }

    /// Return: false if the range is already mapped.
    bool map(std::uint64_t start, std::uint64_t bytes, std::uint64_t physical,
             Attributes attributes) {
        const Result<void> result = engine_->map(start, bytes, physical, attributes,
                                                 {.largest_leaf_lg2 = witness_.largest_leaf_lg2()});
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

    [[nodiscard]] std::optional<Found> translate(std::uint64_t address) const {
        return engine_->translate(address);
    }

    [[nodiscard]] unsigned leaf_lg2(std::uint64_t address) const {
        return alignment_lg2(engine_->leaf_size(address));
    }

    /// A multiple of 2^bytes_lg2 in either half, away from the halves' ends and from the witness's
    /// support pages.
    std::uint64_t random_start(unsigned bytes_lg2) {
        const unsigned bits = facts.input_bits - (facts.sign_extended ? 1 : 0);
        const std::uint64_t lower = bit(bits - 1) | (random() & low_bits(bits - 2));
        const bool upper = facts.sign_extended && (random() & 1) != 0;
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
        return facts.representable(choice) ? choice : read_write;
    }

    /// The translation of each address.
    [[nodiscard]] std::vector<Expectation>
    expectations(const std::vector<std::uint64_t>& addresses) const {
        std::vector<Expectation> all;
        for (const std::uint64_t address : addresses) {
            Expectation expected{.address = address, .read = {}, .write = {}};
            if (const auto found = translate(address)) {
                if (has(found->attributes, Attributes::read))
                    expected.read = found->physical;
                if (has(found->attributes, Attributes::write))
                    expected.write = found->physical;
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
        const std::vector<Answer> answers = witness_.ask(engine_->root(), probes);
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

    void make(std::uint64_t address, Access access) {
        const Probe probe{address, access};
        EXPECT_TRUE(witness_.ask(engine_->root(), {&probe, 1})[0]);
    }

    /// Logarithms of the leaf sizes that both the format and the witness support.
    [[nodiscard]] std::vector<unsigned> leaf_sizes_lg2() const {
        std::vector<unsigned> sizes = facts.leaf_sizes_lg2;
        std::erase_if(sizes, [&](unsigned lg2) { return lg2 > witness_.largest_leaf_lg2(); });
        return sizes;
    }

    /// The change of an entry's word that changes bit `physical_bit` of its physical address.
    [[nodiscard]] Word address_bit(unsigned physical_bit) const {
        return facts.address_step << (physical_bit - facts.granule_lg2);
    }

    /// The engine of the table. The witness caches nothing between queries.
    [[nodiscard]] Engine& engine() { return *engine_; }

    [[nodiscard]] unsigned physical_bits() const { return witness_.physical_bits(); }

    std::mt19937_64 random;
    const FormatFacts& facts;

  private:
    static TableMemory memory_of(const GuestMemory& guest) {
        return {{guest.host, guest.bytes}, PhysicalAddress(guest.physical)};
    }

    Witness& witness_;
    std::unique_ptr<Engine> engine_;
};

} // namespace moat::tests
