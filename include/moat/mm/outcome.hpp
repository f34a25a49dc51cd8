// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What operations on an address space answer. Every one says what it did, so that no caller has to
// look at the tables again and guess.
#pragma once

#include "moat/core/range.hpp"
#include "moat/page_table/attributes.hpp"

#include <cstdint>
#include <string_view>

namespace moat::mm {

enum class Access : std::uint8_t { read, write, execute };

/// A leaf as it was at one moment.
struct LeafView {
    VirtualAddress start;
    PhysicalAddress physical; ///< of `start`
    unsigned size_lg2 = 0;
    Attributes attributes = Attributes::none;

    [[nodiscard]] constexpr VirtualRange range() const {
        return {start, ByteCount(std::uint64_t{1} << size_lg2)};
    }

    /// What `address`, which lies in the leaf, maps to.
    [[nodiscard]] constexpr PhysicalAddress physical_of(VirtualAddress address) const {
        return physical + (address - start);
    }
};

enum class FaultOutcome : std::uint8_t {
    installed, ///< there was nothing, and now there is a leaf
    present,   ///< another thread was first, or the access needed no fault
    upgraded,  ///< the leaf became writable: RAM took the place of the zero page
};

struct Fault {
    FaultOutcome outcome;
    LeafView leaf; ///< as it was under its block's lock
};

/// What taking one leaf apart did.
enum class LeafChange : std::uint8_t {
    split,     ///< smaller leaves take its place; every address translates as before
    unmapped,  ///< nothing takes its place: a device's leaf is never split, the next access faults
    gone,      ///< there is no such leaf any more; nothing was done
    refused,   ///< the leaf stays: an explicit huge page, or a device's that was to be kept
    no_memory, ///< the leaf stays: there is no memory for the table
};

[[nodiscard]] constexpr std::string_view name(LeafChange change) {
    switch (change) {
    case LeafChange::split:
        return "split";
    case LeafChange::unmapped:
        return "unmapped";
    case LeafChange::gone:
        return "gone";
    case LeafChange::refused:
        return "refused";
    case LeafChange::no_memory:
        return "no memory";
    }
    return "?";
}

/// What becomes of a leaf of a device when smaller ones are wanted in its place.
enum class DeviceLeaf : std::uint8_t {
    keep, ///< it stays: all that is known of its pages is known of the leaf
    unmap ///< it goes as a whole
};

/// What a zap did.
struct Zapped {
    std::uint64_t leaves = 0; ///< that went
    std::uint64_t bytes = 0;  ///< that they mapped, also beside the range that was asked for
    std::uint64_t split = 0;  ///< leaves that were taken apart at the range's ends
};

} // namespace moat::mm
