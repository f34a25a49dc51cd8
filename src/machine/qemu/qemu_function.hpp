// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One function of QEMU. qemu_machine.cpp creates it.
#pragma once

#include "machine/qemu/qemu_machine.hpp"

#include <memory>
#include <span>

namespace moat::machine::qemu {

class QemuFunction final : public Function {
  public:
    QemuFunction(QemuMachine& machine, const PciFunction& function);
    ~QemuFunction() override;

    [[nodiscard]] Registers& config() override { return config_; }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override;
    [[nodiscard]] bool take_interrupt(unsigned vector) override;
    [[nodiscard]] Result<void> reset() override;

  private:
    [[nodiscard]] Result<std::unique_ptr<Registers>> open_bar(unsigned index) override;
    /// Errors: unsupported, with `sentence`.
    [[nodiscard]] Result<unsigned> find_capability(std::uint8_t id, const char* sentence);

    QemuMachine& machine_;
    const PciFunction& function_;
    ConfigRegisters config_;
    std::span<std::byte> interrupts_;
};

} // namespace moat::machine::qemu
