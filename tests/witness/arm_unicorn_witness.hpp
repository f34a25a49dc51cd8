// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The AArch64 MMU of unicorn 2 (QEMU's of 5.0) as a witness of VMSAv8-64, stage 1 and stage 2, with
// every granule. It ignores the contiguous bit, so it walks a group entry by entry, and it never
// sets the access flag or a dirty state.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/page_table/formats/arm_stage1.hpp"
#include "moat/page_table/formats/arm_stage2.hpp"

#include "unicorn_machine.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace moat::tests {

/// The processor at EL1 with `code` in its memory, common to both stages.
class ArmUnicorn {
  public:
    static constexpr std::uint64_t memory_start = 0x4000'0000;
    /// The code once more, in TTBR1_EL1's half of the address space.
    static constexpr std::uint64_t upper_code = 0xffff'ffff'c000'0000;

    ArmUnicorn() : machine_(UC_ARCH_ARM64, UC_MODE_ARM), memory_(memory_start) {
        GuestMemory upper = memory_.code();
        upper.physical = upper_code;
        machine_.attach({memory_.all(), upper});
        memory_.write(0, code);
        // SCR_EL3.RW | NS and HCR_EL2.RW: without them the processor takes EL1 for AArch32.
        write_system(6, 1, 1, 0, bit(10) | bit(0));
        write_system(4, 1, 1, 0, bit(31));
    }

    [[nodiscard]] UnicornMemory& memory() { return memory_; }

    [[nodiscard]] const UnicornMemory& memory() const { return memory_; }

    /// MSR S3_<op1>_C<crn>_C<crm>_<op2>, without regard to the exception level.
    void write_system(std::uint32_t op1, std::uint32_t crn, std::uint32_t crm, std::uint32_t op2,
                      std::uint64_t value) {
        machine_.write_register(
            UC_ARM64_REG_CP_REG,
            uc_arm64_cp_reg{
                .crn = crn, .crm = crm, .op0 = 3, .op1 = op1, .op2 = op2, .val = value});
    }

    /// The accesses, by the code at `base`, with nothing cached before.
    std::vector<Answer> ask(std::uint64_t base, std::span<const Probe> probes) {
        if (run(base, invalidate, load).exception)
            throw std::runtime_error("Arm: the witness's own code is not mapped");
        std::vector<Answer> answers;
        for (const Probe& probe : probes)
            answers.push_back(ask(base, probe));
        return answers;
    }

  private:
    // Indices into the code.
    static constexpr unsigned invalidate = 0;
    static constexpr unsigned load = 3;
    static constexpr unsigned store = 4;
    static constexpr unsigned end = 5;
    static constexpr std::array<std::uint32_t, 6> code = {
        0xd508871f, // tlbi vmalle1
        0xd5033f9f, // dsb sy
        0xd5033fdf, // isb
        0x39400001, // ldrb w1, [x0]
        0x39000001, // strb w1, [x0]
        0xd503201f, // nop
    };

    UnicornMachine::Outcome run(std::uint64_t base, unsigned first, unsigned past) {
        return machine_.run(base + 4 * first, base + 4 * past);
    }

    Answer ask(std::uint64_t base, const Probe& probe) {
        constexpr std::uint32_t data_abort = 4; // QEMU's EXCP_DATA_ABORT
        machine_.write_register(UC_ARM64_REG_X0, probe.address);
        const auto outcome =
            probe.access == Access::read ? run(base, load, store) : run(base, store, end);
        if (outcome.exception == data_abort)
            return {};
        if (outcome.exception || !outcome.touched)
            throw std::runtime_error("Arm at " + hexadecimal(probe.address) + ": exception " +
                                     std::to_string(outcome.exception.value_or(0)));
        return outcome.touched;
    }

    UnicornMachine machine_;
    UnicornMemory memory_;
};

/// TG0's encoding of a granule.
constexpr std::uint64_t arm_tg0(unsigned granule_lg2) {
    return granule_lg2 == 12 ? 0 : granule_lg2 == 14 ? 2 : 1;
}

/// TTBR0_EL1 has the tables under test. TTBR1_EL1 has a table of its own, which maps the code.
template <formats::ArmConfig Config>
class ArmStage1UnicornWitness final : public Witness {
  public:
    using Format = formats::ArmStage1<Config>;

    static OpenedWitness open() { return std::make_unique<ArmStage1UnicornWitness>(); }

    ArmStage1UnicornWitness() {
        constexpr std::uint64_t upper_table = 0x1000;
        constexpr Word block_of_1g = 0x701; // a block, accessed, inner shareable
        arm_.memory().write(upper_table + 511 * 8, ArmUnicorn::memory_start | block_of_1g);
        arm_.write_system(0, 10, 2, 0, 0x04ff);                                // MAIR_EL1
        arm_.write_system(0, 2, 0, 1, ArmUnicorn::memory_start + upper_table); // TTBR1_EL1
        // TCR_EL1: T0SZ and TG0 as configured; T1SZ = 25, TG1 = 4K; IPS = 48 bits.
        arm_.write_system(0, 2, 0, 2,
                          (64 - Config.input_bits) | arm_tg0(Config.granule_lg2) << 14 |
                              std::uint64_t{25} << 16 | std::uint64_t{2} << 30 |
                              std::uint64_t{5} << 32);
        arm_.write_system(0, 1, 0, 0, 0x00c5'0839); // SCTLR_EL1: as after reset, and M
    }

    [[nodiscard]] GuestMemory tables() const override { return arm_.memory().tables(); }

    [[nodiscard]] unsigned physical_bits() const override { return Format::output_bits; }

    std::vector<Answer> ask(PhysicalAddress root, std::span<const Probe> probes) override {
        arm_.write_system(0, 2, 0, 0, root.value()); // TTBR0_EL1
        return arm_.ask(ArmUnicorn::upper_code, probes);
    }

  private:
    ArmUnicorn arm_;
};

/// Stage 1 is off, so an address is an intermediate physical one; the tables under test map the
/// code.
template <formats::ArmConfig Config>
class ArmStage2UnicornWitness final : public Witness {
  public:
    using Format = formats::ArmStage2<Config>;

    static OpenedWitness open() { return std::make_unique<ArmStage2UnicornWitness>(); }

    ArmStage2UnicornWitness() {
        // VTCR_EL2: T0SZ, SL0 and TG0 as configured; PS = 48 bits; bit 31 is one. SL0 counts the
        // start level from the other end: in the 4K granule from level 2, in others from level 3.
        constexpr std::uint64_t from = Config.granule_lg2 == 12 ? 2 : 1;
        arm_.write_system(4, 2, 1, 2,
                          (64 - Config.input_bits) | (Format::most_levels - from) << 6 |
                              arm_tg0(Config.granule_lg2) << 14 | std::uint64_t{5} << 16 | bit(31));
        arm_.write_system(4, 1, 1, 0, bit(31) | bit(0)); // HCR_EL2: RW and VM
    }

    [[nodiscard]] GuestMemory tables() const override { return arm_.memory().tables(); }

    [[nodiscard]] unsigned physical_bits() const override { return Format::output_bits; }

    [[nodiscard]] std::optional<SupportPages> support() const override {
        return SupportPages{.start = ArmUnicorn::memory_start,
                            .physical = ArmUnicorn::memory_start,
                            .bytes = UnicornMemory::code_bytes,
                            .attributes = read_only | Attributes::execute};
    }

    std::vector<Answer> ask(PhysicalAddress root, std::span<const Probe> probes) override {
        arm_.write_system(4, 2, 1, 0, root.value()); // VTTBR_EL2
        return arm_.ask(ArmUnicorn::memory_start, probes);
    }

  private:
    ArmUnicorn arm_;
};

} // namespace moat::tests
