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

#include <algorithm>
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
        : Registers(size), model_(model), index_(index) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        return model_.read(index_, offset, width);
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        model_.write(index_, offset, width, value);
    }

    DeviceModel& model_;
    const unsigned index_;
};

/// Configuration space: a function's header, in which only bus mastering is writable.
class ConfigRegisters final : public Registers {
  public:
    explicit ConfigRegisters(Slot& slot) : Registers(ByteCount(256)), slot_(slot) {
        const FunctionInfo& info = slot.info();
        put(pci::vendor_id, info.vendor, 2);
        put(pci::vendor_id + 2, info.device, 2);
        put(pci::class_revision, std::uint64_t{info.class_code} << 8, 4);
    }

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        put(pci::command, pci::command_memory | (slot_.master ? pci::command_master : 0U), 2);
        std::uint64_t value = 0;
        for (unsigned at = 0; at != static_cast<unsigned>(width); ++at)
            value |= std::uint64_t{bytes_[offset + at]} << 8 * at;
        return value;
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        if (offset == pci::command && width != Width::bits8)
            slot_.master = (value & pci::command_master) != 0;
    }

    void put(unsigned offset, std::uint64_t value, unsigned bytes) {
        for (unsigned at = 0; at != bytes; ++at)
            bytes_[offset + at] = static_cast<std::uint8_t>(value >> 8 * at);
    }

    Slot& slot_;
    std::array<std::uint8_t, 256> bytes_{};
};

class SoftFunction final : public Function {
  public:
    explicit SoftFunction(Slot& slot) : Function(slot.info()), slot_(slot), config_(slot) {
        slot_.open = true;
    }

    ~SoftFunction() override {
        quiet();
        slot_.open = false;
    }

    [[nodiscard]] Registers& config() override { return config_; }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
        if (!slot_.attached)
            return fail(ErrorCode::refused, "interrupts need a domain");
        if (slot_.model().vectors() == 0)
            return fail(ErrorCode::unsupported, "the function has no interrupts",
                        {"wanted", wanted});
        slot_.enabled_vectors = std::clamp(wanted, 1U, slot_.model().vectors());
        return slot_.enabled_vectors;
    }

    [[nodiscard]] bool take_interrupt(unsigned vector) override {
        if (vector >= slot_.enabled_vectors || !slot_.raised.test(vector))
            return false;
        slot_.raised.reset(vector);
        return true;
    }

    [[nodiscard]] Result<void> reset() override {
        slot_.model().reset();
        quiet();
        slot_.raised.reset();
        return {};
    }

  private:
    [[nodiscard]] Result<std::unique_ptr<Registers>> open_bar(unsigned index) override {
        return std::make_unique<BarRegisters>(slot_.model(), index, info().bars[index].size);
    }

    void quiet() {
        slot_.master = false;
        slot_.enabled_vectors = 0;
    }

    Slot& slot_;
    ConfigRegisters config_;
};

} // namespace moat::machine::soft
