// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backend in this process: tables of our own, an IOMMU in software, and devices that the caller
// plays or models. Faults are reported within the access.
#include "moat/page_table/owned_tables.hpp"

#include "engines.hpp"
#include "space_core.hpp"

#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace moat::api {

namespace {

using Iommu = iommu::SoftIommu<SoftDomain>;

/// A BAR of a model.
class ModelRegisters final : public machine::Registers {
  public:
    ModelRegisters(const std::atomic<DeviceModel*>& model, unsigned bar, std::uint64_t bytes)
        : Registers(ByteCount(bytes)), model_(model), bar_(bar) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, machine::Width width) override {
        DeviceModel* const model = model_.load(std::memory_order_acquire);
        return model != nullptr ? model->read(bar_, offset, static_cast<unsigned>(width))
                                : ~std::uint64_t{0};
    }

    void do_write(std::uint64_t offset, machine::Width width, std::uint64_t value) override {
        if (DeviceModel* const model = model_.load(std::memory_order_acquire))
            model->write(bar_, offset, static_cast<unsigned>(width), value);
    }

    const std::atomic<DeviceModel*>& model_;
    const unsigned bar_;
};

class SoftDevice final : public AttachedDevice {
  public:
    SoftDevice(machine::Bdf address, Iommu& iommu, Iommu::Device& device, DeviceModel* model)
        : AttachedDevice(address), iommu_(iommu), device_(device), model_(model) {}

    [[nodiscard]] Result<Access> read(Iova from, std::span<std::byte> into) override {
        return how_far(lane_.read(from, into));
    }

    [[nodiscard]] Result<Access> write(Iova to, std::span<const std::byte> from) override {
        return how_far(lane_.write(to, from));
    }

    [[nodiscard]] Result<machine::Registers*> bar(unsigned index) override {
        DeviceModel* const model = model_;
        if (model == nullptr)
            return fail(ErrorCode::unsupported,
                        "a soft device has BARs only where it has a model: attach one");
        const std::uint64_t bytes = index < bars_.size() ? model->bar_bytes(index) : 0;
        if (bytes == 0)
            return fail(ErrorCode::not_found, "the device has no such BAR", {"bar", index});
        const std::lock_guard lock(mutex_);
        if (bars_[index] == nullptr)
            bars_[index] = std::make_unique<ModelRegisters>(model_, index, bytes);
        return bars_[index].get();
    }

    [[nodiscard]] Result<std::span<std::byte>> bar_memory(unsigned index) override {
        DeviceModel* const model = model_;
        const auto memory = model != nullptr ? model->bar_memory(index) : std::span<std::byte>();
        if (memory.empty())
            return fail(ErrorCode::unsupported, "no memory is behind this BAR", {"bar", index});
        return memory;
    }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
        constexpr unsigned most = 2048; // MSI-X
        const DeviceModel* const model = model_;
        const unsigned has = std::min(model != nullptr ? model->vectors() : most, most);
        if (wanted == 0)
            return fail(ErrorCode::empty, "no interrupt vectors are wanted");
        if (has == 0)
            return fail(ErrorCode::unsupported, "the model has no interrupt vectors");
        const std::lock_guard lock(mutex_);
        raised_.assign(std::min(wanted, has), false);
        return static_cast<unsigned>(raised_.size());
    }

    [[nodiscard]] Result<bool> take_interrupt(unsigned vector) override {
        const std::lock_guard lock(mutex_);
        if (vector >= raised_.size())
            return not_enabled(vector);
        const bool raised = raised_[vector];
        raised_[vector] = false;
        return raised;
    }

    Result<void> raise_interrupt(unsigned vector) override {
        const std::lock_guard lock(mutex_);
        if (vector >= raised_.size())
            return not_enabled(vector);
        raised_[vector] = true;
        return {};
    }

    void stop() override { (void)iommu_.detach(device_.source()); }

    void leave() override {}

    void forget_model() override { model_ = nullptr; }

  private:
    [[nodiscard]] static Access how_far(const iommu::Transfer& transfer) {
        return {transfer.done.value(), !transfer.complete()};
    }

    [[nodiscard]] std::unexpected<Error> not_enabled(unsigned vector) const {
        return fail(ErrorCode::out_of_range, "this interrupt vector is not enabled",
                    {"vector", vector}, {"enabled", raised_.size()});
    }

    Iommu& iommu_;
    Iommu::Device& device_;
    iommu::Lane<Iommu::Device> lane_{device_};
    std::atomic<DeviceModel*> model_;
    std::mutex mutex_; ///< of what follows
    std::array<std::unique_ptr<ModelRegisters>, 6> bars_;
    std::vector<bool> raised_;
};

class SoftCore final : public SpaceCore<SoftSpace> {
  public:
    SoftCore(const ContainerConfig& config, const dma::Options& options,
             std::unique_ptr<OwnedTables<RealSync>> tables, SoftDomain::Table table)
        : SpaceCore(config, options), tables_(std::move(tables)), domain_(std::move(table)) {}

    ~SoftCore() override { end_space(); }

    /// Errors: Space::create's.
    [[nodiscard]] Result<void> begin(const ContainerConfig& config, const dma::Options& options) {
        return begin_space(domain_, space_config(config, options));
    }

    [[nodiscard]] Backend backend() const override { return Backend::soft; }

    [[nodiscard]] bool needs_a_device() override { return false; }

    [[nodiscard]] Result<PolledFaults> poll() override { return PolledFaults{}; }

    /// The IOMMU keeps a device that was detached, and has it back when it is attached again.
    [[nodiscard]] Result<std::shared_ptr<AttachedDevice>> make_device(machine::Bdf address,
                                                                      DeviceModel* model) override {
        const auto source = fault::Source::requester(address.requester(), address.segment());
        Iommu::Device*& known = known_[address];
        if (known == nullptr) {
            MOAT_LET(const auto added, iommu_.add_device(source, space()->fault_handler()));
            known = added;
        }
        auto device = std::make_shared<SoftDevice>(address, iommu_, *known, model);
        MOAT_TRY(iommu_.attach(source, domain_));
        return device;
    }

  private:
    std::unique_ptr<OwnedTables<RealSync>> tables_;
    SoftDomain domain_;
    Iommu iommu_;
    std::map<machine::Bdf, Iommu::Device*> known_;
};

} // namespace

Result<std::unique_ptr<Core>> open_soft(const ContainerConfig& config,
                                        const dma::Options& options) {
    MOAT_LET(auto tables, OwnedTables<RealSync>::create(config.tables));
    MOAT_LET(auto table, SoftDomain::Table::create(tables->pool()));
    auto core = std::make_unique<SoftCore>(config, options, std::move(tables), std::move(table));
    MOAT_TRY(core->begin(config, options));
    return core;
}

} // namespace moat::api
