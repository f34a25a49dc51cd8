// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Witness: an independent memory management unit that walks moat's tables and reports where an
// access went. Its implementations are beside this file; witness_suite.cpp asks them.
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/attributes.hpp"

#include "formats.hpp"

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

namespace moat::tests {

enum class Access : std::uint8_t { read, write };

/// A one-byte access for a witness to make.
struct Probe {
    std::uint64_t address;
    Access access;
};

/// The physical address of the access; nothing if the MMU faulted instead.
using Answer = std::optional<std::uint64_t>;

/// A piece of the witness's memory, as both sides see it.
struct GuestMemory {
    std::byte* host;
    std::uint64_t physical;
    std::uint64_t bytes;
};

/// The address of a witness's own code, which the walked tables must map.
struct SupportPages {
    std::uint64_t start;
    std::uint64_t physical;
    std::uint64_t bytes;
    Attributes attributes;
};

class Witness {
  public:
    virtual ~Witness() = default;
    Witness(const Witness&) = delete;
    Witness& operator=(const Witness&) = delete;

    /// The place of the tables. The witness owns memory below 2^(physical_bits - 1); leaves map
    /// addresses above it, where no memory is.
    [[nodiscard]] virtual GuestMemory tables() const = 0;
    /// It distinguishes physical addresses below 2^physical_bits.
    [[nodiscard]] virtual unsigned physical_bits() const = 0;

    /// It does not support leaves of more than 2^largest_leaf_lg2 bytes.
    [[nodiscard]] virtual unsigned largest_leaf_lg2() const { return 63; }

    /// Nothing if the walked tables need not map its code; otherwise in the lower half of the lower
    /// half.
    [[nodiscard]] virtual std::optional<SupportPages> support() const { return {}; }

    /// Loads the root, drops every cached translation, and makes the accesses one after another.
    /// Throws std::runtime_error on any event other than a translation or a page fault.
    virtual std::vector<Answer> ask(PhysicalAddress root, std::span<const Probe> probes) = 0;

  protected:
    Witness() = default;
};

/// A witness, or the reason why it cannot run here.
using OpenedWitness = std::expected<std::unique_ptr<Witness>, std::string>;

/// A witness of one format, as the parameter of a suite.
struct WitnessUnderTest {
    FormatUnderTest format;
    OpenedWitness (*open)();

    friend std::ostream& operator<<(std::ostream& out, const WitnessUnderTest& witness) {
        return out << witness.format;
    }
};

/// Every W has its format as W::Format.
template <class... W>
std::vector<WitnessUnderTest> witnesses() {
    return {{format_of_type<typename W::Format>(), W::open}...};
}

} // namespace moat::tests

/// Runs a suite (a TestWithParam of WitnessUnderTest) with each of the witnesses.
#define MOAT_WITNESSES(Name, Suite, ...)                                                           \
    INSTANTIATE_TEST_SUITE_P(Name, Suite,                                                          \
                             ::testing::ValuesIn(::moat::tests::witnesses<__VA_ARGS__>()),         \
                             [](const auto& tested) { return tested.param.format.facts.name; })
