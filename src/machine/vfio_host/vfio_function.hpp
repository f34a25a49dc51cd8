// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A function opened through VFIO: its regions, interrupts by eventfd, reset. vfio_machine.cpp
// creates it and manages its domain.
#pragma once

#include "machine/machine.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "platform/file_descriptor.hpp"
#include "platform/memory_file.hpp"

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

namespace moat::machine::vfio_host {

/// A region accessed by calls: configuration space, and BARs that cannot be mapped.
class RegionByCalls final : public Registers {
  public:
    RegionByCalls(int device, std::uint64_t offset, ByteCount size)
        : device_(device), offset_(offset), size_(size) {}

    [[nodiscard]] ByteCount size() const override { return size_; }

    [[nodiscard]] std::uint64_t read(std::uint64_t offset, Width width) override;
    void write(std::uint64_t offset, Width width, std::uint64_t value) override;

  private:
    const int device_;
    const std::uint64_t offset_;
    const ByteCount size_;
};

class MappedBar final : public Registers {
  public:
    explicit MappedBar(platform::Mapping mapping) : mapping_(std::move(mapping)) {}

    [[nodiscard]] ByteCount size() const override { return ByteCount(bytes().size()); }

    [[nodiscard]] std::span<std::byte> bytes() const { return mapping_.bytes(); }

    [[nodiscard]] std::uint64_t read(std::uint64_t offset, Width width) override;
    void write(std::uint64_t offset, Width width, std::uint64_t value) override;

  private:
    platform::Mapping mapping_;
};

class VfioFunction final : public Function {
  public:
    /// The function removes itself from `open_ones` when it ends.
    static Result<std::unique_ptr<VfioFunction>> create(const HostFunction& function,
                                                        platform::FileDescriptor device,
                                                        std::set<VfioFunction*>& open_ones);
    ~VfioFunction() override;

    [[nodiscard]] const FunctionInfo& info() const override { return info_; }

    [[nodiscard]] Registers& config() override { return *config_; }

    [[nodiscard]] Result<Registers*> bar(unsigned index) override;
    void set_bus_master(bool allowed) override;
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
        : info_(info), device_(std::move(device)), open_ones_(open_ones) {}

    Result<void> map_bar(unsigned index);
    Result<void> set_interrupts(std::uint32_t kind);
    void disable_interrupts();

    const FunctionInfo info_;
    platform::FileDescriptor device_;
    std::set<VfioFunction*>& open_ones_;
    std::unique_ptr<RegionByCalls> config_;
    std::array<std::unique_ptr<Registers>, 6> bars_;
    std::vector<platform::FileDescriptor> vectors_;
    std::vector<bool> arrived_;
    std::optional<std::uint32_t> interrupt_kind_;
};

} // namespace moat::machine::vfio_host
