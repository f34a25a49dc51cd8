// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The RISC-V MMU of unicorn 2 (QEMU's of 5.0) as a witness of Sv39, Sv48 and Sv57. It lacks Svnapot
// and Svpbmt, and sets accessed and dirty itself (Svadu).
#pragma once

#include "moat/core/bits.hpp"
#include "moat/page_table/formats/riscv.hpp"

#include "unicorn_machine.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace moat::tests {

/// Its code runs in machine mode, whose instruction fetches are not translated; its loads and
/// stores run as supervisor (mstatus.MPRV with MPP = S).
template <formats::RiscvConfig Config>
class RiscvUnicornWitness final : public Witness {
  public:
    using Format = formats::RiscV<Config>;

    static OpenedWitness open() { return std::make_unique<RiscvUnicornWitness>(); }

    RiscvUnicornWitness() : machine_(UC_ARCH_RISCV, UC_MODE_RISCV64), memory_(memory_start) {
        machine_.attach({memory_.all()});
        memory_.write(0, code);
        // Physical memory protection: one region of everything, open to all.
        machine_.write_register(UC_RISCV_REG_A0, low_bits(54));
        machine_.write_register(UC_RISCV_REG_A1, std::uint64_t{0x1f});
        machine_.write_register(UC_RISCV_REG_A2, std::uint64_t{1} << 17 | std::uint64_t{1} << 11);
        run(setup, load_root);
    }

    [[nodiscard]] GuestMemory tables() const override { return memory_.tables(); }

    [[nodiscard]] unsigned physical_bits() const override { return Format::output_bits; }

    std::vector<Answer> ask(PhysicalAddress root, std::span<const Probe> probes) override {
        constexpr std::uint64_t mode = Config.levels + 5; // 8, 9, 10: satp.MODE
        machine_.write_register(UC_RISCV_REG_A0, mode << 60 | root.value() >> 12);
        run(load_root, load);
        std::vector<Answer> answers;
        for (const Probe& probe : probes)
            answers.push_back(ask(probe));
        return answers;
    }

  private:
    static constexpr std::uint64_t memory_start = 0x8000'0000;

    // Indices into the code.
    static constexpr unsigned setup = 0;
    static constexpr unsigned load_root = 3;
    static constexpr unsigned load = 5;
    static constexpr unsigned store = 6;
    static constexpr unsigned end = 7;
    static constexpr std::array<std::uint32_t, 8> code = {
        0x3b051073, // csrw pmpaddr0, a0
        0x3a059073, // csrw pmpcfg0, a1
        0x30061073, // csrw mstatus, a2
        0x18051073, // csrw satp, a0
        0x12000073, // sfence.vma
        0x00050583, // lb a1, 0(a0)
        0x00b50023, // sb a1, 0(a0)
        0x00000013, // nop
    };

    UnicornMachine::Outcome run(unsigned first, unsigned past) {
        return machine_.run(memory_start + 4 * first, memory_start + 4 * past);
    }

    Answer ask(const Probe& probe) {
        const bool read = probe.access == Access::read;
        constexpr std::uint32_t load_page_fault = 13;
        constexpr std::uint32_t store_page_fault = 15;
        machine_.write_register(UC_RISCV_REG_A0, probe.address);
        const auto outcome = read ? run(load, store) : run(store, end);
        if (outcome.exception == (read ? load_page_fault : store_page_fault))
            return {};
        if (outcome.exception || !outcome.touched)
            throw std::runtime_error("RISC-V at " + hexadecimal(probe.address) + ": exception " +
                                     std::to_string(outcome.exception.value_or(0)));
        return outcome.touched;
    }

    UnicornMachine machine_;
    UnicornMemory memory_;
};

} // namespace moat::tests
