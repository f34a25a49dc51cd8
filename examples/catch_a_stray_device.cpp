// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver that catches the faults of its own device. Two buffers are mapped; the device writes
// past the first; the driver is told which buffer, by how much, and who lies beside it.
#include "moat/core/text.hpp"
#include "moat/dma/mapping.hpp"
#include "moat/dma/reporter.hpp"
#include "moat/fault/report.hpp"
#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/table_pool.hpp"
#include "moat/sync/real.hpp"

#include <array>
#include <iostream>
#include <vector>

using namespace moat;
using Pool = TablePool<RealSync>;
using Domain = iommu::SoftDomain<Tree<formats::VtdSecondStage<4>, RealSync, Pool>>;
using Iommu = iommu::SoftIommu<Domain>;
using Space = dma::Space<Domain, RealSync>;

int main() {
    // An IOMMU in software, its tables in this process. Hardware's looks the same from here on.
    alignas(4096) static std::array<std::byte, 64 * 4096> tables;
    static std::array<TableHeader, 64> headers;
    Pool pool(tables, PhysicalAddress(reinterpret_cast<std::uintptr_t>(tables.data())), headers,
              12);
    Domain domain(*Domain::Table::create(pool));

    // The driver's handler: called with the diagnosis as soon as the device strays.
    // (dma::Reporter is one that is ready made.)
    dma::Listener driver;
    driver.fault = [](void*, const fault::Diagnosis& diagnosis) noexcept {
        std::cout << fault::text_report(diagnosis, {.device = "nic"});
    };
    driver.driver_error = [](void*, const dma::DriverError& error) noexcept {
        std::cout << dma::summary(error) << '\n';
    };
    const auto options = dma::options_from_environment(std::cout); // MOAT_OPTIONS
    if (!options) {
        std::cerr << options.error() << '\n';
        return 2;
    }
    const auto created =
        Space::create(domain, {.options = *options, .listener = driver, .pages = dma::own_pages()});
    if (!created) {
        std::cerr << to_string(created.error()) << '\n';
        return 2;
    }
    const auto& space = *created;
    Iommu iommu;
    const auto source = fault::Source::pci(0, 3, 0);
    auto& device = **iommu.add_device(source, space->fault_handler());
    if (!iommu.attach(source, domain))
        return 1;

    // Two buffers side by side in memory. For the device there is a guard page between them.
    alignas(4096) static std::array<std::byte, 2 * 4096> memory;
    const auto packet = dma::Memory::own(std::span(memory).first(4096));
    const auto secret = dma::Memory::own(std::span(memory).last(4096));
    using Mapping = dma::Mapping<Space>;
    const auto received =
        *Mapping::create(*space, packet, dma::Direction::from_device, "receive ring");
    const auto other =
        *Mapping::create(*space, secret, dma::Direction::bidirectional, "descriptors");

    // The device was told 4096 bytes and writes 4160.
    iommu::Lane nic(device);
    nic.write(received.iova(), std::vector(4160, std::byte{0xee}));
    std::cout << "the neighbour's first byte: " << static_cast<int>(memory[4096]) << '\n';
    return memory[4096] == std::byte{0} ? 0 : 1;
}
