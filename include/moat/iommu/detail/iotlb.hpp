// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Iotlb: the recent translations of one thread of a device, so that it need not walk the tables.
// generations.hpp invalidates them; soft_device.hpp fills it.
#pragma once

#include "moat/core/types.hpp"
#include "moat/fault/record.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace moat::iommu {

/// What to add to an address of a block: one addition yields its memory.
class Translation {
  public:
    Translation() = default;

    Translation(std::uint64_t start, std::byte* memory)
        : distance_(reinterpret_cast<std::uintptr_t>(memory) - start) {}

    [[nodiscard, gnu::always_inline]] std::byte* memory_at(std::uint64_t address) const {
        return reinterpret_cast<std::byte*>(distance_ + address);
    }

  private:
    std::uintptr_t distance_ = 0;
};

/// Direct-mapped; owned by one thread. One comparison checks an entry's address and generation;
/// reads and writes have separate entries, so permissions cost nothing.
template <std::size_t Entries, unsigned BlockLg2>
class Iotlb {
  public:
    /// Finds the memory at `address`. Return: an entry that hit, or nullptr for a miss.
    template <fault::Access Kind>
    [[nodiscard, gnu::always_inline]] const Translation* find(std::uint64_t address,
                                                              std::uint64_t generation) const {
        const std::uint64_t block = address >> BlockLg2;
        const Entry& entry = entries_[block % Entries];
        const std::uint64_t wanted = Kind == fault::Access::write ? entry.writable : entry.readable;
        return ((wanted ^ block) | (entry.generation ^ generation)) == 0 ? &entry.translation
                                                                         : nullptr;
    }

    /// `memory` is the start of the block that contains `address`.
    void fill(std::uint64_t address, std::uint64_t generation, std::byte* memory, bool readable,
              bool writable) {
        const std::uint64_t block = address >> BlockLg2;
        entries_[block % Entries] = {readable ? block : no_block, writable ? block : no_block,
                                     generation, Translation(block << BlockLg2, memory)};
    }

    void clear() { entries_.fill({}); }

  private:
    static constexpr std::uint64_t no_block = ~std::uint64_t{0};

    struct alignas(32) Entry {
        std::uint64_t readable = no_block;
        std::uint64_t writable = no_block;
        std::uint64_t generation = 0;
        Translation translation;
    };

    std::array<Entry, Entries> entries_{};
};

} // namespace moat::iommu
