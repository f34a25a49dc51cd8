// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One function of QEMU, and configuration space through q35's ECAM. qemu_machine.cpp creates it.
#pragma once

#include "machine/qemu/qemu_machine.hpp"

#include <array>
#include <memory>
#include <optional>
#include <span>

namespace moat::machine::qemu {

/// The address of ECAM, and the addresses below it for BARs.
inline constexpr PhysicalAddress ecam(0xe0000000);
inline constexpr PhysicalRange bar_window(PhysicalAddress(0xc0000000), ByteCount(0x20000000));

/// Registers in memory.
class MemoryRegisters final : public Registers {
  public:
    MemoryRegisters(Qtest& qtest, PhysicalAddress start, ByteCount size)
        : qtest_(qtest), start_(start), size_(size) {}

    [[nodiscard]] ByteCount size() const override { return size_; }

    [[nodiscard]] std::uint64_t read(std::uint64_t offset, Width width) override;
    void write(std::uint64_t offset, Width width, std::uint64_t value) override;

  private:
    void check(std::uint64_t offset, Width width) const;

    Qtest& qtest_;
    const PhysicalAddress start_;
    const ByteCount size_;
};

class Ecam final : public ConfigSpace {
  public:
    explicit Ecam(Qtest& qtest) : qtest_(qtest) {}

    std::uint32_t read(Bdf function, unsigned offset) override;
    void write(Bdf function, unsigned offset, std::uint32_t value) override;

    [[nodiscard]] static PhysicalAddress of(Bdf function);

  private:
    Qtest& qtest_;
};

class QemuFunction final : public Function {
  public:
    QemuFunction(QemuMachine& machine, const PciFunction& function);
    ~QemuFunction() override;

    [[nodiscard]] const FunctionInfo& info() const override { return function_.info; }

    [[nodiscard]] Registers& config() override { return config_; }

    [[nodiscard]] Result<Registers*> bar(unsigned index) override;
    void set_bus_master(bool allowed) override;
    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override;
    [[nodiscard]] bool take_interrupt(unsigned vector) override;
    [[nodiscard]] Result<void> reset() override;

  private:
    QemuMachine& machine_;
    const PciFunction& function_;
    MemoryRegisters config_;
    std::array<std::unique_ptr<MemoryRegisters>, 6> bars_;
    std::span<std::byte> interrupts_;
};

} // namespace moat::machine::qemu
