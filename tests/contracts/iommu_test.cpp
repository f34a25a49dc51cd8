// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// iommu: check_limits, the domain over tables and the software one, the IOMMU's lanes, VT-d's unit.
// Programmer's errors by contract, so not rows: two batches of one lane at a time (one thread owns
// a lane), and a Command of VT-d, which only the unit makes.
#include "moat/core/text.hpp"
#include "moat/page_table/formats/amd_v1.hpp"

#include "contract.hpp"
#include "iommu/fake_vtd.hpp"
#include "iommu/soft_system.hpp"

#include <array>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using fault::Access;

constexpr std::uint64_t mapped_at = 0x40'0000;
constexpr std::uint64_t good = 0x4000;

struct Visitor {
    std::string text;

    template <class Leaf>
    void leaf(Iova start, const Leaf& found) {
        text += hexadecimal(start.value()) + "+" + to_string(found.size()) + "=" +
                hexadecimal(found.physical().value()) + " ";
    }
};

std::string text_of(const SoftDomain& domain) {
    Visitor visitor;
    EXPECT_TRUE(domain.reader().walk(Iova(0), ByteCount(1ULL << 48), visitor));
    return visitor.text;
}

/// A domain with four mapped pages, an attached device, and a detached one.
class SoftSystem {
  public:
    SoftSystem() {
        reset();
        EXPECT_TRUE(iommu_.attach(source, domain_));
    }

    void reset() {
        EXPECT_TRUE(domain_.unmap(Iova(0), ByteCount(1ULL << 48)));
        EXPECT_TRUE(domain_.map(Iova(mapped_at), ByteCount(good), memory.physical(), read_write));
        std::ranges::fill(memory.bytes(), std::byte{1});
    }

    [[nodiscard]] SoftDomain& domain() { return domain_; }

    [[nodiscard]] SoftIommu& iommu() { return iommu_; }

    [[nodiscard]] Lane& lane() { return lane_; }

    [[nodiscard]] std::string state() const {
        std::uint64_t sum = 0;
        for (const std::byte each : memory.bytes())
            sum = sum * 31 + static_cast<std::uint64_t>(each);
        return text_of(domain_) + std::to_string(sum);
    }

    const fault::Source source = fault::Source::pci(0, 0, 1, 0);
    Buffer memory{good};

  private:
    const std::array<IovaRange, 1> reserved_ = {IovaRange(Iova(0xfee0'0000), ByteCount(0x10'0000))};
    OwnTables tables_;
    SoftDomain domain_{empty_table(tables_), {.reserved = reserved_}};
    SoftIommu iommu_;
    SoftIommu::Device& device_ = **iommu_.add_device(source);
    Lane lane_{device_};
};

std::vector<Row> domains() {
    const auto system = std::make_shared<SoftSystem>();
    const auto state = [=] { return system->state(); };
    const std::vector<Argument> range = {{.name = "start", .good = mapped_at},
                                         {.name = "size", .good = good}};
    std::vector<Argument> map = {{.name = "start", .good = 0x80'0000},
                                 {.name = "size", .good = good},
                                 {.name = "memory", .good = system->memory.physical().value()},
                                 {.name = "attributes", .good = 3, .bits = 32}};
    return {
        {.name = "map",
         .arguments = map,
         .call =
             [=](Values v) {
                 return reset_after(*system, system->domain().map(Iova(v[0]), ByteCount(v[1]),
                                                                  PhysicalAddress(v[2]),
                                                                  static_cast<Attributes>(v[3])));
             },
         .state = state},
        {.name = "map_all",
         .arguments = map,
         .call =
             [=](Values v) {
                 const PhysicalAddress memory(v[2]);
                 const std::array pieces = {
                     iommu::Piece{Iova(0x60'0000), ByteCount(0x1000), PhysicalAddress(0x1000)},
                     iommu::Piece{Iova(v[0]), ByteCount(v[1]), memory},
                     iommu::Piece{Iova(0x70'0000), ByteCount(0x1000), PhysicalAddress(0x1000)}};
                 return reset_after(
                     *system, system->domain().map_all(pieces, static_cast<Attributes>(v[3])));
             },
         .state = state},
        {.name = "unmap",
         .arguments = range,
         .call =
             [=](Values v) {
                 return reset_after(*system, system->domain().unmap(Iova(v[0]), ByteCount(v[1])));
             },
         .state = state},
        {.name = "unmap_deferred",
         .arguments = range,
         .call =
             [=](Values v) {
                 return reset_after(*system,
                                    system->domain().unmap_deferred(Iova(v[0]), ByteCount(v[1])));
             },
         .state = state},
        {.name = "check_limits",
         .arguments = range,
         .call =
             [=](Values v) {
                 return outcome(
                     iommu::check_limits(system->domain().limits(), Iova(v[0]), ByteCount(v[1])));
             },
         .state = state},
    };
}

/// An error does not undo a device's transfers, so `state` is the tables only.
std::vector<Row> lanes() {
    const auto system = std::make_shared<SoftSystem>();
    const auto state = [=] { return text_of(system->domain()); };
    const auto transferred = [=](Values v, const iommu::Transfer& transfer) -> Outcome {
        EXPECT_LE(transfer.done.value(), v[1]);
        EXPECT_EQ(transfer.complete(), transfer.done.value() == v[1]);
        EXPECT_TRUE(system->iommu().take_faults(system->source, [](const fault::Record&) {}));
        return returned;
    };
    const std::vector<Argument> range = {{.name = "iova", .good = mapped_at},
                                         {.name = "size", .good = good}};
    return {
        {.name = "access, read",
         .arguments = range,
         .call =
             [=](Values v) {
                 return transferred(v, system->lane().access<Access::read>(
                                           Iova(v[0]), ByteCount(v[1]),
                                           [](std::byte*, std::size_t, std::size_t) {}));
             },
         .state = state},
        {.name = "access, write",
         .arguments = range,
         .call =
             [=](Values v) {
                 return transferred(v, system->lane().access<Access::write>(
                                           Iova(v[0]), ByteCount(v[1]),
                                           [](std::byte*, std::size_t, std::size_t) {}));
             },
         .state = state},
        {.name = "read and write",
         .arguments = {{.name = "iova", .good = mapped_at}},
         .call = [=](Values v) -> Outcome {
             std::array<std::byte, 3> bytes{};
             const auto read = system->lane().read(Iova(v[0]), bytes);
             const auto written = system->lane().write(Iova(v[0]), bytes);
             EXPECT_EQ(read.done, written.done);
             return returned;
         },
         .state = state},
        {.name = "translate",
         .arguments = {{.name = "iova", .good = mapped_at}},
         .call = [=](Values v) -> Outcome {
             const Lane::Batch batch(system->lane());
             std::byte* const found = system->lane().translate<Access::read>(batch, Iova(v[0]));
             EXPECT_EQ(found != nullptr, v[0] - mapped_at < good);
             return returned;
         },
         .state = state},
    };
}

std::vector<Row> iommu_creations() {
    const auto tables = std::make_shared<OwnTables>();
    const auto pool = std::make_shared<SoftSystem>();
    return {
        {.name = "SoftDomain",
         .arguments = {{.name = "address_bits", .good = 48, .bits = 32}},
         .call = [=](Values v) -> Outcome {
             SoftDomain domain(empty_table(*tables), {.address_bits = static_cast<unsigned>(v[0])});
             const auto aperture = domain.limits().aperture;
             EXPECT_TRUE(v[0] > 48 || aperture.size().value() == 1ULL << v[0]);
             (void)domain.map(Iova(0), ByteCount(4096), PhysicalAddress(0), read_write);
             return returned;
         }},
        {.name = "TableDomain of 64 address bits",
         .arguments = {{.name = "address_bits", .good = 48, .bits = 32}},
         .call = [=](Values v) -> Outcome {
             using Wide = Tree<formats::AmdV1<>, RealSync, TablePool<RealSync>>;
             using WideDomain = iommu::TableDomain<Wide, iommu::Generations<RealSync>>;
             const WideDomain domain(*WideDomain::Table::create(tables->pool(), 6), {},
                                     static_cast<unsigned>(v[0]));
             const std::uint64_t bits = std::min<std::uint64_t>(v[0], 57);
             EXPECT_EQ(domain.limits().aperture.size().value(), 1ULL << bits);
             return returned;
         }},
        {.name = "device of a stream",
         .arguments = {{.name = "id", .good = 7, .bits = 32}},
         .call = [=](Values v) -> Outcome {
             SoftIommu iommu;
             const auto source = fault::Source::stream(static_cast<std::uint32_t>(v[0]));
             EXPECT_FALSE(iommu.detach(source));
             EXPECT_TRUE(iommu.add_device(source));
             return outcome(iommu.attach(source, pool->domain()));
         }},
    };
}

TEST(IommuContracts, domains_take_any_number) {
    expect_contracts(domains);
}

TEST(IommuContracts, lanes_take_any_number) {
    expect_contracts(lanes);
}

TEST(IommuContracts, creation_takes_any_number) {
    expect_contracts(iommu_creations);
}

using VtdUnit = iommu::vtd::Unit<FakeVtd, Pool, RealSync>;
using VtdDomain = iommu::vtd::Domain<VtdUnit, 4>;

/// A VT-d unit with any values in its registers, a domain and a mapping.
class VtdSystem {
  public:
    explicit VtdSystem(std::uint64_t capability = FakeVtd::usual_capability,
                       std::uint64_t extended = FakeVtd::usual_extended)
        : registers_(pool_, capability, extended) {}

    Result<void> open() {
        auto unit = VtdUnit::open(registers_, pool_);
        if (!unit)
            return std::unexpected(unit.error());
        unit_ = std::move(*unit);
        auto domain = VtdDomain::create(*unit_);
        if (!domain)
            return std::unexpected(domain.error());
        domain_ = std::move(*domain);
        return domain_->map(Iova(mapped_at), ByteCount(good), PhysicalAddress(0), read_write);
    }

    [[nodiscard]] FakeVtd& registers() { return registers_; }

    [[nodiscard]] VtdUnit& unit() { return *unit_; }

    [[nodiscard]] VtdDomain& domain() { return *domain_; }

  private:
    Buffer tables_{64 << 12}; // few, as each call zeroes them
    std::vector<TableHeader> headers_ = std::vector<TableHeader>(64);
    Pool pool_{tables_.bytes(), PhysicalAddress(1ULL << 40), headers_, 12};
    FakeVtd registers_;
    std::unique_ptr<VtdUnit> unit_;
    std::unique_ptr<VtdDomain> domain_;
};

std::shared_ptr<VtdSystem> open_vtd() {
    const auto system = std::make_shared<VtdSystem>();
    EXPECT_TRUE(system->open());
    return system;
}

std::vector<Row> vtd_domains() {
    const auto system = open_vtd();
    const auto range = [](const char* name, auto call) {
        return Row{
            .name = name,
            .arguments = {{.name = "start", .good = 0x80'0000}, {.name = "size", .good = good}},
            .call = call};
    };
    return {
        range("VT-d map",
              [=](Values v) {
                  const auto done = system->domain().map(Iova(v[0]), ByteCount(v[1]),
                                                         PhysicalAddress(0), read_write);
                  if (done) {
                      EXPECT_TRUE(system->domain().unmap(Iova(v[0]), ByteCount(v[1])));
                  }
                  return outcome(done);
              }),
        range(
            "VT-d unmap",
            [=](Values v) { return outcome(system->domain().unmap(Iova(v[0]), ByteCount(v[1]))); }),
        range("VT-d unmap_deferred",
              [=](Values v) {
                  return outcome(system->domain().unmap_deferred(Iova(v[0]), ByteCount(v[1])));
              }),
        {.name = "VT-d attach",
         .arguments = {{.name = "requester", .good = 0x10, .bits = 16}},
         .call =
             [=](Values v) {
                 const auto requester = static_cast<std::uint16_t>(v[0]);
                 const auto done = system->domain().attach(requester);
                 if (done) {
                     EXPECT_TRUE(system->unit().detach(requester));
                 }
                 return outcome(done);
             }},
        {.name = "VT-d attach, unit",
         .arguments = {{.name = "requester", .good = 0x10, .bits = 16},
                       {.name = "table", .good = 1ULL << 40},
                       {.name = "levels", .good = 4, .bits = 32},
                       {.name = "domain", .good = 1, .bits = 16}},
         .call =
             [=](Values v) {
                 const auto requester = static_cast<std::uint16_t>(v[0]);
                 const Root root = {PhysicalAddress(v[1]), static_cast<unsigned>(v[2])};
                 const auto done =
                     system->unit().attach(requester, root, static_cast<std::uint16_t>(v[3]));
                 if (done) {
                     EXPECT_TRUE(system->unit().detach(requester));
                 }
                 return outcome(done);
             }},
        {.name = "VT-d invalidate",
         .arguments = {{.name = "domain", .good = 1, .bits = 16},
                       {.name = "start", .good = mapped_at},
                       {.name = "last", .good = mapped_at + 0xfff}},
         .call =
             [=](Values v) {
                 const InvalidationRequest<Iova> request = {.start = Iova(v[1]),
                                                            .last = Iova(v[2])};
                 return outcome(
                     system->unit().invalidate(static_cast<std::uint16_t>(v[0]), {&request, 1}));
             }},
    };
}

/// The registers of a unit are numbers from a device.
std::vector<Row> vtd_registers() {
    namespace reg = iommu::vtd::reg;
    const auto with_records = [](VtdSystem& system) {
        unsigned faults = 0;
        const auto count = [&](const fault::Record&) { ++faults; };
        (void)system.unit().take_faults(count);
    };
    const auto system = open_vtd();
    return {
        {.name = "VT-d give_domain_number_back",
         .arguments = {{.name = "number", .good = 1, .bits = 16}},
         .call = [=](Values v) -> Outcome {
             system->unit().give_domain_number_back(static_cast<std::uint16_t>(v[0]));
             return returned;
         }},
        {.name = "VT-d capabilities",
         .arguments = {{.name = "capability",
                        .good = FakeVtd::usual_capability,
                        .named = false,
                        .more = {FakeVtd::usual_capability | field_mask(53, 48),
                                 FakeVtd::usual_capability | field_mask(21, 16),
                                 FakeVtd::usual_capability | field_mask(47, 40),
                                 FakeVtd::usual_capability & ~field_mask(2, 0)}},
                       {.name = "extended",
                        .good = FakeVtd::usual_extended,
                        .named = false,
                        .more = {FakeVtd::usual_extended | field_mask(17, 8)}}},
         .call =
             [=](Values v) {
                 VtdSystem own(v[0], v[1]);
                 const auto opened = own.open();
                 if (opened) {
                     (void)own.domain().attach(7);
                     (void)own.domain().unmap(Iova(0), ByteCount(1ULL << 30));
                     own.registers().values[reg::fault_status] = ~0ULL;
                     with_records(own);
                     (void)own.unit().detach(7);
                 }
                 return outcome(opened);
             }},
        {.name = "VT-d fault records",
         .arguments = {{.name = "status", .good = 2, .bits = 32},
                       {.name = "low", .good = 0x1000},
                       {.name = "high", .good = bit(63) | 5ULL << 32}},
         .call = [=](Values v) -> Outcome {
             const auto own = open_vtd();
             own->registers().values[reg::fault_status] = v[0];
             own->registers().values[FakeVtd::fault_records] = v[1];
             own->registers().values[FakeVtd::fault_records + 8] = v[2];
             with_records(*own);
             return returned;
         }},
    };
}

TEST(IommuContracts, vtd_domains_take_any_number) {
    expect_contracts(vtd_domains);
}

TEST(IommuContracts, vtd_registers_take_any_number) {
    expect_contracts(vtd_registers);
}

} // namespace
} // namespace moat::tests
