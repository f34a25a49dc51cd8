// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An independent processor in one of moat's address spaces: unicorn's RISC-V loads and stores
// through its tables, and fault() handles each of its page faults.
#include "moat/mm/address_space.hpp"
#include "moat/page_table/formats/riscv.hpp"
#include "moat/sync/serial.hpp"

#include "unicorn_machine.hpp"

#include <array>
#include <cstdint>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

namespace moat::tests {
namespace {

using namespace moat::literals;
using namespace moat::mm;

using Sv48 = formats::RiscV<{.levels = 4, .accessed_dirty = FlagUpdate::hardware}>;
using Memory = PhysicalMemory<HeapStore<SerialSync>>;
using Space = AddressSpace<Sv48, SerialSync, Memory>;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t gib = 1 << 30;
constexpr std::uint64_t ram_bytes = 16 * mib;
constexpr std::uint64_t table_bytes = mib;
constexpr std::uint64_t bar_base = 1ULL << 40;

/// RAM with contents, and the tables, at the physical addresses of the processor.
struct Machine {
    static constexpr PhysicalLayout layout(std::span<const ByteCount> nodes) {
        return {.nodes = nodes};
    }

    Machine()
        : ram(ram_bytes + 2 * mib), nodes{ByteCount(ram_bytes)},
          memory(HeapStore<SerialSync>(ByteCount(table_bytes), ram_span()), layout(nodes)),
          bar(**memory.add_region({PhysicalAddress(bar_base), 4_GiB}, RegionKind::registers)),
          space(memory, *Space::Tables::create(memory)) {}

    /// unicorn requires whole host pages.
    [[nodiscard]] std::span<std::byte> ram_span() {
        const auto start = reinterpret_cast<std::uintptr_t>(ram.data());
        return {ram.data() + ((start + page - 1) / page * page - start), ram_bytes};
    }

    [[nodiscard]] std::byte* at(PhysicalAddress physical) {
        return memory.store().ram() + (physical.value() - memory.ram().start().value());
    }

    std::vector<std::byte> ram;
    std::array<ByteCount, 1> nodes;
    Memory memory;
    DeviceRegion<SerialSync>& bar;
    Space space;
};

/// Loads and stores of 8 bytes as supervisor (mstatus.MPRV with MPP = S and SUM) by code that runs
/// in machine mode, whose instruction fetches are not translated.
class Processor {
  public:
    explicit Processor(Machine& machine)
        : machine_(machine), cpu_(UC_ARCH_RISCV, UC_MODE_RISCV64), code_memory_(code_start) {
        const PhysicalLayout layout = Machine::layout(machine.nodes);
        const auto tables = machine.memory.store().tables();
        cpu_.attach({{tables.data(), layout.tables_base.value(), tables.size()},
                     {machine.memory.store().ram(), layout.ram_base.value(), ram_bytes},
                     code_memory_.all()});
        code_memory_.write(0, code);
        cpu_.write_register(UC_RISCV_REG_A0, low_bits(54));
        cpu_.write_register(UC_RISCV_REG_A1, std::uint64_t{0x1f});
        cpu_.write_register(UC_RISCV_REG_A2,
                            std::uint64_t{1} << 18 | std::uint64_t{1} << 17 | 1ULL << 11);
        run(0, 3);
    }

    struct Outcome {
        bool served = false; ///< the access succeeded, after a fault or without one
        unsigned faults = 0;
        std::uint64_t value = 0;              ///< of a load from RAM
        std::optional<std::uint64_t> touched; ///< a physical address outside RAM
    };

    Outcome load(std::uint64_t address) { return access(address, 0, mm::Access::read); }

    Outcome store(std::uint64_t address, std::uint64_t value) {
        return access(address, value, mm::Access::write);
    }

  private:
    static constexpr std::uint64_t code_start = 0x8000'0000;
    static constexpr std::array<std::uint32_t, 10> code = {
        0x3b051073, // csrw pmpaddr0, a0
        0x3a059073, // csrw pmpcfg0, a1
        0x30061073, // csrw mstatus, a2
        0x18061073, // csrw satp, a2
        0x12000073, // sfence.vma
        0x00053583, // ld a1, 0(a0)
        0x18061073, // csrw satp, a2
        0x12000073, // sfence.vma
        0x00b53023, // sd a1, 0(a0)
        0x00000013, // nop
    };

    UnicornMachine::Outcome run(unsigned first, unsigned past) {
        return cpu_.run(code_start + 4 * first, code_start + 4 * past);
    }

    Outcome access(std::uint64_t address, std::uint64_t value, mm::Access kind) {
        constexpr std::uint64_t sv48 = 9; // satp.MODE
        const bool is_read = kind == mm::Access::read;
        for (Outcome outcome;; ++outcome.faults) {
            cpu_.write_register(UC_RISCV_REG_A0, address);
            cpu_.write_register(UC_RISCV_REG_A1, value);
            cpu_.write_register(UC_RISCV_REG_A2,
                                sv48 << 60 | machine_.space.tables().root().table.value() >> 12);
            const auto result = is_read ? run(3, 6) : run(6, 9);
            if (!result.exception) {
                uc_reg_read(cpu_.engine(), UC_RISCV_REG_A1, &outcome.value);
                outcome.touched = result.touched;
                outcome.served = true;
                return outcome;
            }
            EXPECT_EQ(*result.exception, is_read ? 13U : 15U) << "a page fault";
            if (!machine_.space.fault(VirtualAddress(address), kind))
                return outcome;
            if (outcome.faults == 3) {
                ADD_FAILURE() << "served again and again at " << hexadecimal(address);
                return outcome;
            }
        }
    }

    Machine& machine_;
    UnicornMachine cpu_;
    UnicornMemory code_memory_;
};

class AddressSpaceWitness : public ::testing::Test {
  protected:
    void map(std::uint64_t start, std::uint64_t size, const Mapping<SerialSync>& mapping = {}) {
        ASSERT_TRUE(machine.space.map({VirtualAddress(start), ByteCount(size)}, mapping));
    }

    Machine machine;
    Processor processor{machine};
};

constexpr std::uint64_t base = 1ULL << 38;

TEST_F(AddressSpaceWitness, what_is_stored_lies_where_the_space_says) {
    map(base, 4 * mib + 8 * page); // two leaves of 2 MiB, and pages
    std::mt19937_64 random(1);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> stored;
    for (unsigned i = 0; i != 500; ++i) {
        const std::uint64_t address = base + random() % ((4 * mib + 8 * page) / 8) * 8;
        const auto outcome = processor.store(address, random());
        ASSERT_TRUE(outcome.served);
        ASSERT_LE(outcome.faults, 1U);
        const auto leaf = machine.space.look_up(VirtualAddress(address));
        ASSERT_TRUE(leaf);
        std::uint64_t there = 0;
        std::memcpy(&there, machine.at(leaf->physical_of(VirtualAddress(address))), 8);
        ASSERT_EQ(there, outcome.value);
        stored.emplace_back(address, there);
    }
    const auto large = machine.space.look_up(VirtualAddress(base));
    ASSERT_TRUE(large);
    EXPECT_EQ(large->size_lg2, 21U);
    ASSERT_TRUE(processor.store(base + 4 * mib, 1).served);
    EXPECT_EQ(machine.space.look_up(VirtualAddress(base + 4 * mib))->size_lg2, 12U);
    for (std::size_t i = stored.size(); i-- != stored.size() - 100;) {
        const auto outcome = processor.load(stored[i].first);
        EXPECT_EQ(outcome.faults, 0U);
        EXPECT_TRUE(outcome.served);
    }
}

TEST_F(AddressSpaceWitness, fault_is_served_once) {
    map(base, 2 * page);
    EXPECT_EQ(processor.store(base + 8, 7).faults, 1U);
    EXPECT_EQ(processor.load(base + 8).faults, 0U);
    EXPECT_EQ(processor.load(base + 8).value, 7U);
    ASSERT_TRUE(machine.space.zap({VirtualAddress(base), ByteCount(page)}));
    const auto again = processor.load(base + 8);
    EXPECT_EQ(again.faults, 1U);
    EXPECT_EQ(again.value, 0U) << "what was zapped is gone";
}

TEST_F(AddressSpaceWitness, zero_page_is_replaced_by_the_first_store) {
    map(base, 2 * mib);
    EXPECT_EQ(processor.load(base + 5 * page).value, 0U);
    EXPECT_TRUE(machine.memory.is_zero(machine.space.look_up(VirtualAddress(base))->physical));
    const auto stored = processor.store(base + 5 * page, 9);
    EXPECT_TRUE(stored.served);
    EXPECT_EQ(stored.faults, 1U) << "the zero page is read-only";
    EXPECT_EQ(processor.load(base + 5 * page).value, 9U);
    EXPECT_EQ(processor.load(base + 6 * page).value, 0U);
}

TEST_F(AddressSpaceWitness, without_mapping_or_permission_there_is_no_access) {
    map(base, page, {.permissions = read_only});
    EXPECT_FALSE(processor.load(base + page).served);
    EXPECT_FALSE(processor.store(base, 1).served);
    EXPECT_TRUE(processor.load(base).served);
    EXPECT_FALSE(processor.store(base, 1).served) << "also where a leaf is there";
    ASSERT_TRUE(machine.space.unmap({VirtualAddress(base), ByteCount(page)}));
    EXPECT_FALSE(processor.load(base).served);
}

TEST_F(AddressSpaceWitness, bar_is_reached_through_leaves_of_every_size) {
    map(base, 2 * gib + 2 * mib + 3 * page,
        {.kind = VmaKind::device, .region = &machine.bar, .offset = ByteCount(gib)});
    for (const std::uint64_t offset : {std::uint64_t{0}, gib - 8, 2 * gib + 8, 2 * gib + 2 * mib,
                                       2 * gib + 2 * mib + 3 * page - 8}) {
        const auto outcome = processor.load(base + offset);
        ASSERT_TRUE(outcome.touched) << hexadecimal(offset);
        EXPECT_EQ(*outcome.touched, bar_base + gib + offset);
    }
    EXPECT_EQ(machine.space.look_up(VirtualAddress(base))->size_lg2, 30U);
    machine.space.revoke(machine.bar);
    EXPECT_FALSE(processor.load(base).served) << "revoked";
    machine.space.restore(machine.bar);
    EXPECT_EQ(processor.load(base).faults, 1U);
}

TEST_F(AddressSpaceWitness, stores_make_dirty_and_loads_only_accessed) {
    map(base, 2 * page, {.largest_leaf_lg2 = 12});
    ASSERT_TRUE(
        machine.space.populate({VirtualAddress(base), ByteCount(2 * page)}, mm::Access::write));
    const VirtualRange both(VirtualAddress(base), ByteCount(2 * page));
    std::vector<std::pair<std::uint64_t, Attributes>> had;
    const auto collect = [&](const LeafView& leaf) {
        had.emplace_back(leaf.start.value(), leaf.attributes);
    };
    const Attributes flags = Attributes::accessed | Attributes::dirty;
    ASSERT_TRUE(machine.space.clear_accessed_dirty(both, flags, collect));
    had.clear();
    EXPECT_TRUE(processor.load(base).served);
    EXPECT_TRUE(processor.store(base + page, 1).served);
    ASSERT_TRUE(machine.space.clear_accessed_dirty(both, flags, collect));
    ASSERT_EQ(had.size(), 2U);
    EXPECT_TRUE(has(had[0].second, Attributes::accessed));
    EXPECT_FALSE(has(had[0].second, Attributes::dirty));
    EXPECT_TRUE(has(had[1].second, Attributes::dirty));
}

} // namespace
} // namespace moat::tests
