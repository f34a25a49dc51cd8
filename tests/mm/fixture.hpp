// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An address space over a little memory, for the tests of this room: two nodes, a BAR, device
// memory with page structs. The tests have the checks.
#pragma once

#include "moat/core/text.hpp"
#include "moat/mm/address_space.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/sync/real.hpp"

#include <array>
#include <cstdint>
#include <gtest/gtest.h>
#include <vector>

namespace moat::mm::tests {

using namespace moat::literals;

inline constexpr std::uint64_t kib = 1 << 10;
inline constexpr std::uint64_t mib = 1 << 20;
inline constexpr std::uint64_t gib = 1 << 30;
inline constexpr std::uint64_t page = 4 * kib;

[[nodiscard]] inline VirtualRange at(std::uint64_t start, std::uint64_t size) {
    return {VirtualAddress(start), ByteCount(size)};
}

using Sync = RealSync;
using Memory = PhysicalMemory<HeapStore<Sync>>;
using Space = AddressSpace<formats::X86_64<4>, Sync, Memory>;

/// Counts its notifications.
struct Listener final : Notifier<Sync> {
    void invalidated(const InvalidationRequest<VirtualAddress>& request, Change change) override {
        heard.push_back({request.start.value(), request.last.value(), change});
    }

    struct Heard {
        std::uint64_t start;
        std::uint64_t last;
        Change change;
    };

    std::vector<Heard> heard;
};

/// The layout of PhysicalMemory.
struct Sizes {
    std::array<ByteCount, 2> nodes{64_MiB, 32_MiB};
    ByteCount tables = 4_MiB;
    ByteCount bar = 256_GiB;
    ByteCount device_memory = 8_MiB;
};

/// A machine and one process.
struct World {
    explicit World(const Sizes& chosen = {}, const SpaceOptions& options = {})
        : sizes(chosen), memory(HeapStore<Sync>(sizes.tables), {.nodes = sizes.nodes}),
          bar(**memory.add_region({bar_base, sizes.bar}, RegionKind::registers)),
          device_memory(**memory.add_region({PhysicalAddress(1ULL << 42), sizes.device_memory},
                                            RegionKind::page_structs)),
          space(memory, *Space::Tables::create(memory), options) {}

    static constexpr PhysicalAddress bar_base{1ULL << 40};

    [[nodiscard]] Mapping<Sync> bar_mapping(std::uint64_t offset = 0) const {
        return {.kind = VmaKind::device, .region = &bar, .offset = ByteCount(offset)};
    }

    /// log2 of the size of the leaf at `address`; 0: a hole.
    [[nodiscard]] unsigned leaf_lg2(std::uint64_t address) const {
        const auto leaf = space.look_up(VirtualAddress(address));
        return leaf ? leaf->size_lg2 : 0;
    }

    Sizes sizes;
    Memory memory;
    DeviceRegion<Sync>& bar;
    DeviceRegion<Sync>& device_memory;
    Space space;
};

} // namespace moat::mm::tests
