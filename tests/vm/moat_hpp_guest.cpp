// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat.hpp over Linux VFIO: README's driver, with QEMU's edu for its device.
#include "moat/moat.hpp"

#include "api/edu.hpp"
#include "guest.hpp"

#include <iostream>

namespace moat::tests {
namespace {

constexpr const char* edu_address = "0000:00:04.0";
constexpr const char* memory_address = "0000:00:07.0";

class DriverOverVfio : public ::testing::Test {
  protected:
    void SetUp() override {
        for (const machine::Bdf each : {edu, memory_bar}) {
            const auto bound = machine::vfio_host::bind_to_vfio(each);
            ASSERT_TRUE(bound) << bound.error();
        }
    }

    [[nodiscard]] Container open(moat::Backend backend = moat::Backend::vfio) {
        return Container::open(
                   {.backend = backend,
                    .guard = 64_KiB,
                    .dma_mask = (1U << 28) - 1, // edu's
                    .environment = Environment::ignore,
                    .on_fault =
                        [this](const Fault& fault) {
                            std::cout << fault;
                            labels.emplace_back(fault.label());
                            kinds.push_back(fault.kind());
                        },
                    .on_driver_error =
                        [this](const DriverError& error) { errors.push_back(error.kind()); }})
            .value();
    }

    /// Until the first fault has come. The kernel limits the rate of its lines: then it counts as
    /// lost.
    [[nodiscard]] bool fault_comes(Container& pci) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        const std::size_t before = labels.size();
        while (std::chrono::steady_clock::now() < end) {
            const PolledFaults polled = pci.poll_faults().value();
            EXPECT_EQ(polled.reported, labels.size() - before);
            if (polled.reported + polled.lost != 0)
                return true;
        }
        return false;
    }

    [[nodiscard]] static bool by_type1() { return expected_backend() == Backend::type1; }

    std::vector<std::string> labels;
    std::vector<FaultKind> kinds;
    std::vector<DriverErrorKind> errors;
};

TEST_F(DriverOverVfio, an_overrun_is_stopped_and_names_the_buffer) {
    Container pci = open();
    const Buffer buffer = pci.allocate(2 * page).value();
    EXPECT_EQ(pci.map(buffer, from_device).error().code(), ErrorCode::refused) << "no device yet";
    Device device = pci.attach(edu_address).value();
    EXPECT_EQ(pci.limits().value().backend,
              by_type1() ? moat::Backend::type1 : moat::Backend::iommufd);
    EXPECT_EQ(pci.limits().value().guard, 64_KiB);
    std::ranges::fill(buffer.bytes(), canary);
    Mapping rx = pci.map(buffer.bytes().first(page), from_device, "rx ring").value();
    const Mapping other = pci.map(buffer.bytes().last(page), from_device, "other").value();
    const Edu driver(device.bar(0).value());
    ASSERT_TRUE(driver.is_there());
    ASSERT_TRUE(driver.write_memory(rx.iova() + 2048, 2048 + 64));
    EXPECT_TRUE(fault_comes(pci));
    if (!labels.empty()) {
        EXPECT_EQ(labels[0], "rx ring");
        EXPECT_EQ(kinds[0], FaultKind::out_of_bounds_right);
    }
    EXPECT_TRUE(rx.sync_for_cpu());
    EXPECT_EQ(std::ranges::count(buffer.bytes(), canary), 2048 + 4096)
        << "the half page, and no neighbour";
    EXPECT_TRUE(rx.unmap());
    EXPECT_TRUE(errors.empty());
}

TEST_F(DriverOverVfio, a_device_that_comes_back_has_new_registers) {
    Container pci = open(by_type1() ? moat::Backend::type1 : moat::Backend::iommufd);
    std::optional<Device> device = pci.attach(edu_address).value();
    const Bar before = device->bar(0).value();
    {
        const CoherentBuffer ring = pci.allocate_coherent(page, "ring").value();
        EXPECT_EQ(device->detach().error().code(), ErrorCode::busy) << "something is mapped";
        device.reset();
        EXPECT_EQ(before.read32(0).error().code(), ErrorCode::refused);
        device.emplace(pci.attach(edu_address).value());
        EXPECT_EQ(before.read32(0).error().code(), ErrorCode::refused) << "of the Device before";
        std::ranges::fill(ring.bytes(), canary);
        ASSERT_TRUE(Edu(device->bar(0).value()).write_memory(ring.iova(), 100));
        EXPECT_EQ(std::ranges::count(ring.bytes(), canary), std::ptrdiff_t{page - 100});
    }
    EXPECT_TRUE(device->detach());
    EXPECT_EQ(pci.poll_faults().value().reported, 0U);
}

TEST_F(DriverOverVfio, a_region_of_another_device_is_reached) {
    Container pci = open();
    Device memory = pci.attach(memory_address).value();
    Device device = pci.attach(edu_address).value();
    const Bar bar = memory.bar(2).value();
    const auto bytes = bar.memory().value().first(2 * page);
    std::ranges::fill(bytes, canary);
    auto region = pci.map_region(bar, 0, page, from_device, "the BAR");
    EXPECT_EQ(region.has_value(), by_type1());
    if (!region) {
        EXPECT_EQ(region.error().code(), ErrorCode::unsupported) << region.error();
        return;
    }
    ASSERT_TRUE(Edu(device.bar(0).value()).write_memory(region->iova() + page - 64, 65));
    EXPECT_EQ(std::ranges::count(bytes, canary), 2 * page - 64) << "one byte beyond is blocked";
    EXPECT_TRUE(region->unmap());
}

} // namespace
} // namespace moat::tests
