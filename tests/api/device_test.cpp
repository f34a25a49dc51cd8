// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Devices of a soft container, played by the test, or by a model behind BARs and interrupts.
#include "moat/moat.hpp"

#include "model.hpp"

#include <gtest/gtest.h>
#include <optional>
#include <thread>

namespace moat::tests {
namespace {

constexpr std::size_t device_page = Copier::page;

/// These tests provoke strays, so they print no reports.
Container open(ContainerConfig config = {}) {
    config.environment = Environment::ignore;
    config.on_fault = [](const Fault&) {};
    return Container::open(config).value();
}

TEST(Devices, a_model_is_driven_by_its_bar_and_reaches_what_is_mapped) {
    Copier model;
    int faults = 0;
    Container pci = Container::open({.environment = Environment::ignore,
                                     .on_fault = [&](const Fault&) { ++faults; }})
                        .value();
    Device nic = pci.attach("00:03.0", model).value();
    const Buffer ring = pci.allocate(device_page).value();
    Mapping rx = pci.map(ring, from_device, "rx").value();
    const Bar registers = nic.bar(0).value();
    EXPECT_EQ(registers.size(), device_page);
    EXPECT_TRUE(registers.write64(0x28, rx.iova()));
    EXPECT_TRUE(registers.write32(0x30, device_page));
    EXPECT_EQ(model.last_width, 4U);
    EXPECT_EQ(registers.read64(0x38).value(), 1U);
    EXPECT_TRUE(rx.sync_for_cpu());
    EXPECT_EQ(ring.bytes().back(), std::byte{0xee});
    EXPECT_TRUE(registers.write16(0x30, device_page + 1));
    EXPECT_EQ(registers.read8(0x38).value(), 1U);
    EXPECT_EQ(registers.read16(0).value(), 0U);
    EXPECT_EQ(registers.read32(0).value(), 0U);
    EXPECT_TRUE(registers.write8(0, 1));
    EXPECT_EQ(faults, 1);
}

TEST(Devices, registers_are_inside_and_aligned) {
    Copier model;
    Container pci = open();
    Device nic = pci.attach("00:03.0", model).value();
    const Bar bar = nic.bar(0).value();
    EXPECT_EQ(bar.read32(2).error().code(), ErrorCode::unaligned);
    EXPECT_EQ(bar.read8(device_page).error().code(), ErrorCode::out_of_range);
    EXPECT_TRUE(bar.read64(device_page - 8));
    EXPECT_EQ(bar.write64(~std::uint64_t{7}, 0).error().code(), ErrorCode::out_of_range);
    EXPECT_EQ(nic.bar(1).error().code(), ErrorCode::not_found);
    EXPECT_EQ(nic.bar(6).error().code(), ErrorCode::not_found);
    EXPECT_EQ(bar.memory().error().code(), ErrorCode::unsupported);
    Device played = pci.attach("00:04.0").value();
    EXPECT_EQ(played.bar(0).error().code(), ErrorCode::unsupported);
}

TEST(Devices, interrupts_are_taken_once) {
    Copier model;
    Container pci = open();
    Device nic = pci.attach("00:03.0", model).value();
    EXPECT_EQ(nic.take_interrupt(0).error().code(), ErrorCode::out_of_range) << "none is enabled";
    EXPECT_EQ(nic.enable_interrupts(0).error().code(), ErrorCode::empty);
    EXPECT_EQ(nic.enable_interrupts(~0U).value(), 4U) << "as many as the model has";
    EXPECT_FALSE(nic.take_interrupt(1).value());
    EXPECT_TRUE(nic.bar(0).value().write32(0x30, 1));
    EXPECT_FALSE(nic.take_interrupt(0).value());
    EXPECT_TRUE(nic.take_interrupt(1).value());
    EXPECT_FALSE(nic.take_interrupt(1).value());
    EXPECT_EQ(nic.raise_interrupt(4).error().code(), ErrorCode::out_of_range);
    EXPECT_TRUE(nic.raise_interrupt(3));
    EXPECT_TRUE(nic.wait_for_interrupt(3, 1000).value());
    EXPECT_FALSE(nic.wait_for_interrupt(3, 1).value());
    EXPECT_EQ(nic.wait_for_interrupt(4, 1000).error().code(), ErrorCode::out_of_range);
}

TEST(Devices, a_region_of_one_is_reached_by_another) {
    Copier model(true);
    Container pci = open();
    Device memory = pci.attach("00:03.0", model).value();
    Device nic = pci.attach("00:04.0").value();
    const Bar bar = memory.bar(2).value();
    Mapping peer = pci.map_region(bar, 0, device_page, bidirectional, "peer").value();
    const std::array<std::byte, 4> data = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
    EXPECT_TRUE(nic.write(peer.iova() + 8, data));
    EXPECT_EQ(model.memory[11], std::byte{4});
    EXPECT_EQ(pci.map_region(bar, 1, device_page, bidirectional).error().code(),
              ErrorCode::out_of_range);
    EXPECT_EQ(pci.map_region(bar, 0, 64, bidirectional).error().code(), ErrorCode::unaligned);
    EXPECT_EQ(pci.map_region(bar, 0, 0, bidirectional).error().code(), ErrorCode::empty);
    EXPECT_EQ(pci.map_region(memory.bar(0).value(), 0, device_page, bidirectional).error().code(),
              ErrorCode::unsupported);
}

TEST(Devices, a_device_that_is_detached_reaches_nothing_and_may_come_back) {
    Container pci = open();
    Device nic = pci.attach("00:03.0").value();
    EXPECT_EQ(pci.attach("0000:00:03.0").error().code(), ErrorCode::busy);
    const CoherentBuffer buffer = pci.allocate_coherent(device_page).value();
    std::byte byte{};
    EXPECT_TRUE(nic.read(buffer.iova(), {&byte, 1}));
    EXPECT_TRUE(nic.detach());
    EXPECT_EQ(nic.detach().error().code(), ErrorCode::refused);
    EXPECT_EQ(nic.read(buffer.iova(), {&byte, 1}).error().code(), ErrorCode::refused);
    nic = pci.attach("00:03.0").value();
    EXPECT_TRUE(nic.read(buffer.iova(), {&byte, 1}));
    nic = pci.attach("00:05.0").value();
    EXPECT_TRUE(pci.attach("00:03.0")) << "assignment detached it";
}

TEST(Devices, one_thread_uses_a_device_at_a_time) {
    std::optional<Device> nic;
    Container pci = Container::open({.environment = Environment::ignore,
                                     .on_fault =
                                         [&](const Fault&) {
                                             std::thread([&] {
                                                 std::byte byte{};
                                                 EXPECT_EQ(nic->read(0, {&byte, 1}).error().code(),
                                                           ErrorCode::busy);
                                             }).join();
                                         }})
                        .value();
    nic.emplace(pci.attach("00:03.0").value());
    std::byte byte{};
    EXPECT_EQ(nic->read(device_page, {&byte, 1}).error().code(), ErrorCode::refused);
    EXPECT_EQ(nic->read(device_page, {}).error().code(), ErrorCode::empty);
}

TEST(Devices, one_model_is_one_device) {
    Copier model;
    Container pci = open();
    EXPECT_FALSE(model.read_as_device(device_page, {model.memory.data(), 1}))
        << "it is not attached";
    {
        const Device nic = pci.attach("00:03.0", model).value();
        EXPECT_EQ(pci.attach("00:04.0", model).error().code(), ErrorCode::busy);
    }
    EXPECT_TRUE(pci.attach("00:04.0", model));
}

} // namespace
} // namespace moat::tests
