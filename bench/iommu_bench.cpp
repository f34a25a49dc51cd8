// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a device's access costs in the software IOMMU: a hit, a miss, a copy; and what an unmap
// costs those who are not concerned. docs/design/iommu.md says why.
#include "harness.hpp"
#include "iommu/soft_system.hpp"

#include <array>
#include <atomic>
#include <cstring>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;
using namespace moat::tests;
using fault::Access;

constexpr fault::Source device_id = fault::Source::pci(0, 1, 0);
constexpr std::uint64_t page = 4096;

/// `pages` mapped from address 0 on, each to memory of its own.
struct System {
    explicit System(std::uint64_t pages)
        : memory(pages * page), lane(**iommu.add_device(device_id)) {
        for (std::uint64_t i = 0; i != pages; ++i)
            keep(domain.map(Iova(i * page), ByteCount(page),
                            PhysicalAddress(memory.physical().value() + i * page), read_write));
        keep(iommu.attach(device_id, domain));
    }

    OwnTables tables;
    Buffer memory;
    SoftDomain domain{empty_table(tables)};
    SoftIommu iommu;
    Lane lane;
};

/// The least that a cache of translations can be: a tag beside a value, by the page's number.
struct TaggedArray {
    struct Entry {
        std::uint64_t tag = ~std::uint64_t{0};
        std::byte* memory = nullptr;
    };

    std::array<Entry, 256> entries{};

    [[nodiscard]] std::byte* find(std::uint64_t address) const {
        const Entry& entry = entries[(address >> 12) % entries.size()];
        return entry.tag == address >> 12 ? entry.memory + address % page : nullptr;
    }
};

void hits(Suite& suite) {
    constexpr std::uint64_t pages = 16;
    System system(pages);
    TaggedArray array;
    for (std::uint64_t i = 0; i != pages; ++i)
        array.entries[i] = {i, system.memory.data() + i * page};
    suite.compare({.name = "translate, a hit",
                   .subject = {.run =
                                   [&](std::uint64_t count) {
                                       const Lane::Batch batch(system.lane);
                                       for (; count != 0; --count)
                                           keep(system.lane.translate<Access::read>(
                                               batch, Iova(count % pages * page + count % 64)));
                                   }},
                   .against = "a tagged direct-mapped array",
                   .other = {.run =
                                 [&](std::uint64_t count) {
                                     for (; count != 0; --count)
                                         keep(array.find(count % pages * page + count % 64));
                                 }},
                   .goal = 1.6});
}

/// Levels 3 to 0 of VT-d's second stage; leaves where they may be.
std::uint64_t walk_by_hand(const std::uint64_t* table, std::uint64_t address) {
    for (unsigned level = 3;; --level) {
        const std::uint64_t entry =
            std::atomic_ref(const_cast<std::uint64_t&>(table[address >> (12 + 9 * level) & 511]))
                .load(std::memory_order_acquire);
        if ((entry & 3) == 0)
            return 0;
        if (level == 0 || (entry & 0x80) != 0)
            return (entry & 0xffffffffff000) | (address & low_bits(12 + 9 * level));
        table = reinterpret_cast<const std::uint64_t*>(entry & 0xffffffffff000);
    }
}

/// As in a device, which cannot go on before it knows where: the next address waits for this one's
/// translation (whose bit 51 is 0).
void misses(Suite& suite) {
    constexpr std::uint64_t pages = 512; // twice what is cached, so that each pushes another out
    System system(pages);
    const auto* const root =
        reinterpret_cast<const std::uint64_t*>(system.domain.table().root().table.value());
    const auto after = [](std::uint64_t address, std::uint64_t found) {
        return (address + 257 * page + (found >> 51)) % (pages * page);
    };
    suite.compare(
        {.name = "translate, a miss on hot tables",
         .subject = {.run =
                         [&](std::uint64_t count) {
                             const Lane::Batch batch(system.lane);
                             for (std::uint64_t address = 0; count != 0; --count)
                                 keep(address =
                                          after(address, reinterpret_cast<std::uintptr_t>(
                                                             system.lane.translate<Access::read>(
                                                                 batch, Iova(address)))));
                         }},
         .against = "a hand-written 4-level walk",
         .other = {.run =
                       [&](std::uint64_t count) {
                           for (std::uint64_t address = 0; count != 0; --count)
                               keep(address = after(address, walk_by_hand(root, address)));
                       }},
         .goal = 2.5});
}

void others_are_left_alone(Suite& suite) {
    constexpr std::uint64_t hot = 16;
    System system(hot);
    const Buffer buffer(page);
    const Iova away(64 * page);
    const auto touch_all = [&] {
        const Lane::Batch batch(system.lane);
        for (std::uint64_t i = 0; i != hot; ++i)
            keep(system.lane.translate<Access::read>(batch, Iova(i * page)));
    };
    const auto map = [&] {
        keep(system.domain.map(away, ByteCount(page), buffer.physical(), read_write));
    };
    const auto unmap = [&] { keep(system.domain.unmap(away, ByteCount(page))); };
    System idle(hot); // whose mapping is made and undone without a device that looks
    suite.compare({.name = "map + unmap, 16 hot translations between",
                   .subject = {.run =
                                   [&](std::uint64_t count) {
                                       for (; count != 0; --count) {
                                           map();
                                           touch_all();
                                           unmap();
                                       }
                                   }},
                   .against = "16 translations and a map + unmap of a domain nobody uses",
                   .other = {.run =
                                 [&](std::uint64_t count) {
                                     for (; count != 0; --count) {
                                         touch_all();
                                         keep(idle.domain.map(away, ByteCount(page),
                                                              buffer.physical(), read_write));
                                         keep(idle.domain.unmap(away, ByteCount(page)));
                                     }
                                 }},
                   .goal = 2});
}

/// All that a table of pages covers, so that each unmap removes the table.
void a_table_made_and_removed(Suite& suite) {
    System system(1);
    constexpr ByteCount covered(512 * page);
    constexpr Iova start(512 * page);
    const PhysicalAddress memory(0x100001000); // aligned to no leaf but a page's
    std::vector<std::uint64_t> entries(512);
    suite.compare(
        {.name = "map + unmap 512 x 4K strictly, a table made and removed",
         .subject = {.run =
                         [&](std::uint64_t count) {
                             for (; count != 0; --count) {
                                 keep(system.domain.map(start, covered, memory, read_write));
                                 keep(system.domain.unmap(start, covered));
                             }
                         }},
         .against = "512 stores there and back, a table zeroed, a page unmapped strictly",
         .other = {.run =
                       [&](std::uint64_t count) {
                           for (; count != 0; --count) {
                               for (const std::uint64_t word : {0U, 1U, 0U})
                                   for (std::uint64_t& entry : entries)
                                       std::atomic_ref(entry).store(word,
                                                                    std::memory_order_relaxed);
                               keep(system.domain.map(Iova(page), ByteCount(page), memory,
                                                      read_write));
                               keep(system.domain.unmap(Iova(page), ByteCount(page)));
                           }
                       }},
         .goal = 2});
}

/// As a disk serves a command of 128 KiB: a page at a time, in one batch.
void copies(Suite& suite) {
    constexpr std::uint64_t pages = 32;
    System system(pages);
    std::vector<std::byte> here(page);
    const Side plain = {.run = [&](std::uint64_t count) {
        for (; count != 0; --count) {
            std::memcpy(system.memory.data() + count % pages * page, here.data(), page);
            keep(here[0]);
        }
    }};
    suite.compare({.name = "device writes 4 KiB, commands of 32",
                   .subject = {.run =
                                   [&](std::uint64_t count) {
                                       while (count != 0) {
                                           const Lane::Batch batch(system.lane);
                                           const std::uint64_t some = count < pages ? count : pages;
                                           for (std::uint64_t i = 0; i != some; ++i)
                                               keep(system.lane.write(Iova(i * page), here).done);
                                           count -= some;
                                       }
                                   }},
                   .against = "memcpy",
                   .other = plain,
                   .goal = 1 / 0.9});
    suite.compare(
        {.name = "device writes 4 KiB, each by itself",
         .subject = {.run =
                         [&](std::uint64_t count) {
                             for (; count != 0; --count)
                                 keep(system.lane.write(Iova(count % pages * page), here).done);
                         }},
         .against = "memcpy",
         .other = plain});
}

} // namespace

int main(int argc, char** argv) {
    Suite suite("iommu", argc, argv);
    hits(suite);
    misses(suite);
    others_are_left_alone(suite);
    a_table_made_and_removed(suite);
    copies(suite);
    return suite.finish();
}
