// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Results of operations on an address space. Each reports what the operation did, so that callers
// need not read the tables again.
#pragma once

#include "moat/core/range.hpp"
#include "moat/page_table/attributes.hpp"

#include <cstdint>

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

    /// The physical address of `address`, which lies in the leaf.
    [[nodiscard]] constexpr PhysicalAddress physical_of(VirtualAddress address) const {
        return physical + (address - start);
    }
};

enum class FaultOutcome : std::uint8_t {
    installed, ///< there was no leaf before
    present,   ///< another thread was first, or the access needed no fault
    upgraded,  ///< the leaf became writable: RAM replaced the zero page
};

struct Fault {
    FaultOutcome outcome;
    LeafView leaf; ///< as it was under its block's lock
};

/// Result of splitting one leaf.
enum class LeafChange : std::uint8_t {
    split,     ///< smaller leaves replace it; every address translates as before
    unmapped,  ///< a device's leaf, which is never split: the next access faults
    gone,      ///< there is no such leaf any more; nothing changed
    refused,   ///< the leaf stays: an explicit huge page, or a device's with DeviceLeaf::keep
    no_memory, ///< the leaf stays: there is no memory for the table
};

/// What to do with a device's leaf when the caller wants smaller ones.
enum class DeviceLeaf : std::uint8_t {
    keep, ///< it has no information by page that a split could reveal
    unmap ///< the next access faults in a leaf that fits
};

/// Result of a zap.
struct Zapped {
    std::uint64_t leaves = 0; ///< removed
    std::uint64_t bytes = 0;  ///< that they mapped, also beyond the range
    std::uint64_t split = 0;  ///< leaves split at the range's ends
};

} // namespace moat::mm
