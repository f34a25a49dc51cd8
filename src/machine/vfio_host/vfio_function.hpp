// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A function opened through VFIO: its regions, interrupts by eventfd, reset. vfio_machine.cpp
// creates it and manages its domain.
#pragma once

#include "machine/machine.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "platform/file_descriptor.hpp"

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

namespace moat::machine::vfio_host {

class VfioFunction final : public Function {
  public:
    /// The function removes itself from `open_ones` when it ends.
    static Result<std::unique_ptr<VfioFunction>> create(const HostFunction& function,
                                                        platform::FileDescriptor device,
                                                        std::set<VfioFunction*>& open_ones);
    ~VfioFunction() override;

    [[nodiscard]] Registers& config() override { return *config_; }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override;
    [[nodiscard]] bool take_interrupt(unsigned vector) override;
    [[nodiscard]] Result<void> reset() override;

    /// A memory BAR mapped in this process. Errors: bar's; unsupported (it cannot be mapped).
    [[nodiscard]] Result<std::span<std::byte>> bar_memory(unsigned index);

    /// Each file becomes readable with its interrupt; -1 without interrupts.
    [[nodiscard]] std::span<const platform::FileDescriptor> interrupt_files() const {
        return vectors_;
    }

    /// Records pending interrupts for take_interrupt and makes the files unreadable again.
    void collect_interrupts();

  private:
    VfioFunction(const FunctionInfo& info, platform::FileDescriptor device,
                 std::set<VfioFunction*>& open_ones)
        : Function(info), device_(std::move(device)), open_ones_(open_ones) {}

    [[nodiscard]] Result<std::unique_ptr<Registers>> open_bar(unsigned index) override;
    Result<void> set_interrupts(std::uint32_t kind);
    void disable_interrupts();

    platform::FileDescriptor device_;
    std::set<VfioFunction*>& open_ones_;
    std::unique_ptr<Registers> config_;
    std::vector<platform::FileDescriptor> vectors_;
    std::vector<bool> arrived_;
    std::optional<std::uint32_t> interrupt_kind_;
};

} // namespace moat::machine::vfio_host
