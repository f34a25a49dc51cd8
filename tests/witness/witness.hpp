// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The Witness concept: an independent memory management unit that walks moat's tables and reports
// where an access went. The models are beside this file; witness_suite.hpp uses them.
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

template <class W>
concept Witness = requires(W& witness, PhysicalAddress root, std::span<const Probe> probes) {
    // The format that it walks.
    requires PageTableFormat<typename W::Format>;
    // Starts one, or throws the reason why none can run here.
    { W::open() } -> std::same_as<std::expected<std::unique_ptr<W>, std::string>>;
    // The place of the tables. The witness owns memory below 2^(physical_bits - 1); leaves map
    // addresses above it, where no memory is.
    { witness.tables() } -> std::same_as<GuestMemory>;
    // It distinguishes physical addresses below 2^physical_bits.
    { witness.physical_bits() } -> std::same_as<unsigned>;
    // It does not support leaves of more than 2^largest_leaf_lg2 bytes.
    { witness.largest_leaf_lg2() } -> std::same_as<unsigned>;
    // Nothing if the walked tables need not map its code; otherwise in the lower half of the lower
    // half.
    { W::support } -> std::convertible_to<std::optional<SupportPages>>;
    // Loads the root, drops every cached translation, and makes the accesses one after another.
    // Throws std::runtime_error on any event other than a translation or a page fault.
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
