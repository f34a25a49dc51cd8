// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A slot on the soft machine's bus: a model, its access to memory, and the CPU's view of it.
// soft_machine.cpp creates it.
#pragma once

#include "moat/core/check.hpp"
#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include "machine/soft/device_model.hpp"

#include <array>
#include <bitset>
#include <cstdint>
#include <map>
#include <memory>

namespace moat::machine::soft {

using SoftTree = Tree<formats::VtdSecondStage<4>, RealSync, TablePool<RealSync>>;
using TranslatingDomain = iommu::SoftDomain<SoftTree>;

/// The memory of one machine. Devices use its own addresses: a bad physical address in a table
/// reaches nothing.
class HostRam {
  public:
    using Pieces = std::map<std::uint64_t, std::uint64_t>; ///< start to size

    explicit HostRam(const Pieces& pieces) : pieces_(&pieces) {}

    [[nodiscard]] std::byte* find(PhysicalAddress physical, ByteCount size) const {
        const auto after = pieces_->upper_bound(physical.value());
        if (after == pieces_->begin())
            return nullptr;
        const auto& [start, bytes] = *std::prev(after);
        const std::uint64_t offset = physical.value() - start;
        if (offset >= bytes || size.value() > bytes - offset)
            return nullptr;
        return reinterpret_cast<std::byte*>(physical.value());
    }

  private:
    const Pieces* pieces_;
};

static_assert(iommu::HostMemory<HostRam>);

using Iommu = iommu::SoftIommu<TranslatingDomain, HostRam>;

/// The bus as one model sees it.
class Slot final : public BusMaster {
  public:
    Slot(Bdf address, DeviceModel& model, Iommu::Device& device)
        : model_(model), info_(model.info()), lane_(device) {
        info_.address = address;
    }

    [[nodiscard]] DeviceModel& model() { return model_; }

    [[nodiscard]] const FunctionInfo& info() const { return info_; }

    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        return master ? lane_.read(from, into).done : ByteCount();
    }

    [[nodiscard]] ByteCount write(Iova to, std::span<const std::byte> from) override {
        return master ? lane_.write(to, from).done : ByteCount();
    }

    void interrupt(unsigned vector) override {
        if (master && vector < enabled_vectors)
            raised.set(vector);
    }

    // For the open function.
    bool open = false;
    bool attached = false;
    bool master = false;
    unsigned enabled_vectors = 0;
    std::bitset<64> raised;

  private:
    DeviceModel& model_;
    FunctionInfo info_;
    iommu::Lane<Iommu::Device> lane_;
};

/// A model's BAR.
class BarRegisters final : public Registers {
  public:
    BarRegisters(DeviceModel& model, unsigned index, ByteCount size)
        : model_(model), index_(index), size_(size) {}

    [[nodiscard]] ByteCount size() const override { return size_; }

    [[nodiscard]] std::uint64_t read(std::uint64_t offset, Width width) override;
    void write(std::uint64_t offset, Width width, std::uint64_t value) override;

  private:
    DeviceModel& model_;
    const unsigned index_;
    const ByteCount size_;
};

/// Configuration space: a function's header, in which only bus mastering is writable.
class ConfigRegisters final : public Registers {
  public:
    explicit ConfigRegisters(Slot& slot);

    [[nodiscard]] ByteCount size() const override { return ByteCount(bytes_.size()); }

    [[nodiscard]] std::uint64_t read(std::uint64_t offset, Width width) override;
    void write(std::uint64_t offset, Width width, std::uint64_t value) override;

  private:
    void put(unsigned offset, std::uint64_t value, unsigned bytes);

    Slot& slot_;
    std::array<std::uint8_t, 256> bytes_{};
};

class SoftFunction final : public Function {
  public:
    explicit SoftFunction(Slot& slot);
    ~SoftFunction() override;

    [[nodiscard]] const FunctionInfo& info() const override { return slot_.info(); }

    [[nodiscard]] Registers& config() override { return config_; }

    [[nodiscard]] Result<Registers*> bar(unsigned index) override;

    void set_bus_master(bool allowed) override { slot_.master = allowed; }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override;
    [[nodiscard]] bool take_interrupt(unsigned vector) override;
    [[nodiscard]] Result<void> reset() override;

  private:
    Slot& slot_;
    ConfigRegisters config_;
    std::array<std::unique_ptr<BarRegisters>, 6> bars_;
};

} // namespace moat::machine::soft
