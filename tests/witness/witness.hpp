// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The Witness concept: a memory management unit not written here, that walks tables of ours and
// says where an access went. The models are beside this file; witness_suite.hpp asks them.
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/attributes.hpp"
#include "moat/page_table/format.hpp"

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace moat::tests {

enum class Access : std::uint8_t { read, write };

/// An access of one byte that a witness is asked to make.
struct Probe {
    std::uint64_t address;
    Access access;
};

/// The physical address that the access went to; nothing where the MMU faulted instead.
using Answer = std::optional<std::uint64_t>;

/// A piece of the witness's memory, as both sides see it.
struct GuestMemory {
    std::byte* host;
    std::uint64_t physical;
    std::uint64_t bytes;
};

/// Where a witness's own code must be mapped in the tables that it walks.
struct SupportPages {
    std::uint64_t start;
    std::uint64_t physical;
    std::uint64_t bytes;
    Attributes attributes;
};

template <class W>
concept Witness = requires(W& witness, PhysicalAddress root, std::span<const Probe> probes) {
    // The format that it walks.
    requires PageTableFormat<typename W::Format>;
    // Starts one, or says why none can run here.
    { W::open() } -> std::same_as<std::expected<std::unique_ptr<W>, std::string>>;
    // Where tables must lie. Memory below 2^(physical_bits - 1) is the witness's; leaves lead
    // above that, where nothing is.
    { witness.tables() } -> std::same_as<GuestMemory>;
    // Physical addresses that it can tell are below 2^physical_bits.
    { witness.physical_bits() } -> std::same_as<unsigned>;
    // Leaves of more than 2^largest_leaf_lg2 bytes it does not know.
    { witness.largest_leaf_lg2() } -> std::same_as<unsigned>;
    // Nothing where its own code is outside of what it walks; in the lower half of the lower half.
    { W::support } -> std::convertible_to<std::optional<SupportPages>>;
    // Loads the root, forgets every cached translation, makes the accesses one after another.
    // Throws std::runtime_error where something else than a translation or a page fault happens.
    { witness.ask(root, probes) } -> std::same_as<std::vector<Answer>>;
};

/// "x86_64_4_levels_48_bits"
struct WitnessName {
    template <class W>
    static std::string GetName(int) {
        using F = typename W::Format;
        std::string name;
        for (const char c : F::name)
            if (std::isalnum(static_cast<unsigned char>(c)) != 0)
                name += c;
            else if (!name.ends_with('_'))
                name += '_';
        return name + "_" + std::to_string(input_bits<F>()) + "_bits";
    }
};

} // namespace moat::tests
