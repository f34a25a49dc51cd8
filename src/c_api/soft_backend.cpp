// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backend in this process: tables of our own, an IOMMU in software, and devices whose part the
// caller plays. Faults are told within the access.
#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/table_pool.hpp"
#include "moat/sync/real.hpp"

#include "platform/memory_file.hpp"
#include "space_backend.hpp"

#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace moat::c_api {

namespace {

using Pool = TablePool<RealSync>;
using SoftDomain = iommu::SoftDomain<Tree<formats::VtdSecondStage<4>, RealSync, Pool>>;
using Iommu = iommu::SoftIommu<SoftDomain>;
using SoftSpace = dma::Space<SoftDomain, RealSync>;

/// Tables that memory is behind only where they are used.
struct Tables {
    platform::Mapping memory;
    std::vector<TableHeader> headers;
    Pool pool;

    Tables(platform::Mapping bytes, std::size_t count)
        : memory(std::move(bytes)), headers(count),
          pool(memory.bytes(),
               PhysicalAddress(reinterpret_cast<std::uintptr_t>(memory.bytes().data())), headers,
               12) {}
};

class SoftDevice final : public Device {
  public:
    SoftDevice(Iommu& iommu, Iommu::Device& device) : iommu_(iommu), device_(device) {}

    ~SoftDevice() override { stop(); }

    [[nodiscard]] Result<Access> read(Iova from, std::span<std::byte> into) override {
        return how_far(lane_.read(from, into));
    }

    [[nodiscard]] Result<Access> write(Iova to, std::span<const std::byte> from) override {
        return how_far(lane_.write(to, from));
    }

    [[nodiscard]] Result<std::span<std::byte>> bar(unsigned /*index*/) override {
        return fail(ErrorCode::unsupported, "a soft device has no BARs: the caller plays its part");
    }

    void stop() override { (void)iommu_.detach(device_.source()); }

  private:
    [[nodiscard]] static Access how_far(const iommu::Transfer& transfer) {
        return {transfer.done.value(), !transfer.complete()};
    }

    Iommu& iommu_;
    Iommu::Device& device_;
    iommu::Lane<Iommu::Device> lane_{device_};
};

class SoftBackend final : public SpaceBackend<SoftSpace> {
  public:
    SoftBackend(std::unique_ptr<Tables> tables, SoftDomain::Table table)
        : tables_(std::move(tables)), domain_(std::move(table)) {}

    ~SoftBackend() override { end_space(); }

    /// Errors: Space::create's.
    [[nodiscard]] Result<void> begin(const dma::SpaceConfig& config) {
        auto space = SoftSpace::create(domain_, config);
        if (!space)
            return std::unexpected(space.error());
        begin_space(std::move(*space));
        return {};
    }

    [[nodiscard]] std::int32_t number() const override { return MOAT_BACKEND_SOFT; }

    [[nodiscard]] bool needs_a_device() override { return false; }

    [[nodiscard]] Result<Told> poll() override { return Told{}; }

    /// The IOMMU keeps a device that was detached, and has it back when it is attached again.
    [[nodiscard]] Result<std::unique_ptr<Device>> attach(machine::Bdf address) override {
        const auto source = fault::Source::requester(address.requester(), address.segment());
        const std::lock_guard lock(mutex_);
        Iommu::Device*& known = known_[address];
        if (known == nullptr) {
            const auto added = iommu_.add_device(source, space()->fault_handler());
            if (!added)
                return std::unexpected(added.error());
            known = *added;
        }
        auto device = std::make_unique<SoftDevice>(iommu_, *known);
        if (const auto attached = iommu_.attach(source, domain_); !attached)
            return std::unexpected(attached.error());
        return device;
    }

  private:
    std::unique_ptr<Tables> tables_;
    SoftDomain domain_;
    Iommu iommu_;
    std::mutex mutex_;
    std::map<machine::Bdf, Iommu::Device*> known_;
};

} // namespace

Result<std::unique_ptr<Backend>> open_soft(const dma::SpaceConfig& config, std::size_t tables) {
    auto memory = platform::Mapping::create(-1, ByteCount(std::uint64_t{tables} << 12));
    if (!memory)
        return std::unexpected(memory.error());
    auto pool = std::make_unique<Tables>(std::move(*memory), tables);
    auto table = SoftDomain::Table::create(pool->pool);
    if (!table)
        return std::unexpected(table.error());
    auto backend = std::make_unique<SoftBackend>(std::move(pool), std::move(*table));
    if (const auto begun = backend->begin(config); !begun)
        return std::unexpected(begun.error());
    return backend;
}

} // namespace moat::c_api
