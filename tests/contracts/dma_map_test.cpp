// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mm: DmaMap and its limits. No number here is a precondition.
#include "moat/sync/real.hpp"

#include "contract.hpp"
#include "mm/dma_map_fixture.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using Machine =
    mm::tests::Machine<mm::tests::DomainOf<FlagUpdate::none, iommu::Generations<RealSync>>>;

constexpr std::uint64_t bar_base = 1ULL << 32;
constexpr std::uint64_t size = 0x20'0000;
constexpr std::uint64_t bar_page = 4096;

/// A process of 8 MiB of RAM and a BAR, with one mapping for devices.
class Vfio {
  public:
    Vfio() {
        auto& space = machine_.world.space;
        EXPECT_TRUE(space.map(mm::tests::at(bar_base, 4 * size), {}));
        EXPECT_TRUE(space.map(mm::tests::at(2 * bar_base, 4 * size), machine_.world.bar_mapping()));
        reset();
    }

    void reset() {
        EXPECT_TRUE(container().unmap_dma(Iova(0), ByteCount(1ULL << 48)));
        EXPECT_TRUE(container().map_dma(Iova(bar_base), VirtualAddress(bar_base), ByteCount(size),
                                        read_write));
        EXPECT_TRUE(container().start_dirty_tracking());
    }

    [[nodiscard]] mm::DmaMap<mm::tests::Space, Machine::Domain>& container() {
        return machine_.container;
    }

    [[nodiscard]] std::string state() const {
        std::string text = std::to_string(machine_.container.mappings()) + " mappings, " +
                           to_string(machine_.container.pinned()) + " pinned";
        for (const std::uint64_t at : {bar_base, bar_base + size - bar_page})
            if (const auto found = machine_.reach(at))
                text += ", " + hexadecimal(found->physical().value());
        return text;
    }

  private:
    Machine machine_;
};

std::vector<Row> rows() {
    const auto vfio = std::make_shared<Vfio>();
    const auto state = [=] { return vfio->state(); };
    const auto map = [=](const char* name, std::uint64_t address) {
        return Row{.name = name,
                   .arguments = {{.name = "iova", .good = 0x80'0000},
                                 {.name = "address", .good = address},
                                 {.name = "size", .good = size},
                                 {.name = "permissions", .good = 3, .bits = 32}},
                   .call =
                       [=](Values v) {
                           return reset_after(
                               *vfio, vfio->container().map_dma(Iova(v[0]), VirtualAddress(v[1]),
                                                                ByteCount(v[2]),
                                                                static_cast<Attributes>(v[3])));
                       },
                   .state = state};
    };
    return {
        map("map_dma", bar_base + size),
        map("map_dma, BAR", 2 * bar_base),
        {.name = "unmap_dma",
         .arguments = {{.name = "iova", .good = bar_base}, {.name = "size", .good = size}},
         .call =
             [=](Values v) {
                 return reset_after(*vfio,
                                    vfio->container().unmap_dma(Iova(v[0]), ByteCount(v[1])));
             },
         .state = state},
        {.name = "dirty_pages",
         .arguments = {{.name = "iova", .good = bar_base},
                       {.name = "size", .good = size},
                       {.name = "words", .good = 8}},
         .call =
             [=](Values v) {
                 std::vector<std::uint64_t> bitmap(std::min<std::uint64_t>(v[2], 1 << 16));
                 return outcome(vfio->container().dirty_pages(Iova(v[0]), ByteCount(v[1]), bitmap));
             },
         .state = state},
    };
}

std::vector<Row> limits() {
    return {
        {.name = "mappings",
         .arguments = {{.name = "mappings", .good = 2}},
         .call =
             [](Values v) {
                 Machine machine({}, {.mappings = v[0]});
                 const auto mapped = machine.map_ram(bar_base, size);
                 EXPECT_EQ(mapped.has_value(), v[0] != 0);
                 return outcome(mapped);
             }},
        {.name = "locked_bytes",
         .arguments = {{.name = "bytes", .good = 4 * size}},
         .call =
             [](Values v) {
                 Machine machine({}, {.locked_bytes = ByteCount(v[0])});
                 return outcome(machine.map_ram(bar_base, size));
             }},
    };
}

TEST(DmaMapContracts, map_and_unmap_take_any_number) {
    expect_contracts(rows);
}

TEST(VfioContracts, limits_take_any_number) {
    expect_contracts(limits);
}

} // namespace
} // namespace moat::tests
