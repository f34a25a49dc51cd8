// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver over moat.hpp and a device of QEMU's, without hardware.
#include "moat/moat.hpp"

#include "edu.hpp"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace moat::tests {
namespace {

constexpr std::size_t qemu_page = 4096;
constexpr std::byte qemu_canary{0xc5};

class QemuContainer : public testing::Test {
  protected:
    void open(ContainerConfig config = {}) {
        config.backend = Backend::qemu;
        config.qemu.devices = {"edu,addr=4"};
        config.dma_mask = (1U << 28) - 1; // edu's
        config.environment = Environment::ignore;
        config.on_fault = [this](const Fault& fault) {
            labels.emplace_back(fault.label());
            kinds.push_back(fault.kind());
        };
        config.on_driver_error = [this](const DriverError& error) {
            errors.push_back(error.kind());
        };
        auto opened = Container::open(config);
        if (!opened && opened.error().code() == ErrorCode::not_found)
            GTEST_SKIP() << "SKIPPED: " << opened.error().sentence();
        ASSERT_TRUE(opened) << opened.error().sentence();
        pci.emplace(std::move(*opened));
        device.emplace(pci->attach("00:04.0").value());
    }

    [[nodiscard]] Edu edu() { return Edu(device->bar(0).value()); }

    [[nodiscard]] static std::ptrdiff_t changed(std::span<const std::byte> bytes) {
        return std::ranges::count_if(bytes, [](std::byte each) { return each != qemu_canary; });
    }

    std::optional<Container> pci;
    std::optional<Device> device;
    std::vector<std::string> labels;
    std::vector<FaultKind> kinds;
    std::vector<DriverErrorKind> errors;
};

TEST_F(QemuContainer, an_overrun_is_stopped_and_names_the_buffer) {
    ASSERT_NO_FATAL_FAILURE(open());
    if (IsSkipped())
        return;
    EXPECT_EQ(pci->limits().value().backend, Backend::qemu);
    const Buffer buffer = pci->allocate(2 * qemu_page).value();
    std::ranges::fill(buffer.bytes(), qemu_canary);
    Mapping rx = pci->map(buffer.bytes().first(qemu_page), from_device, "rx ring").value();
    Mapping other = pci->map(buffer.bytes().last(qemu_page), from_device, "other").value();
    ASSERT_TRUE(edu().is_there());
    ASSERT_TRUE(edu().write_memory(rx.iova(), 100));
    EXPECT_EQ(pci->poll_faults().value().reported, 0U);
    ASSERT_TRUE(rx.sync_for_cpu() && other.sync_for_cpu());
    EXPECT_EQ(changed(buffer.bytes()), 100);
    ASSERT_TRUE(edu().write_memory(rx.iova() + 2048, 2048 + 64));
    const std::uint64_t reported = pci->poll_faults().value().reported;
    EXPECT_EQ(reported, labels.size());
    ASSERT_FALSE(labels.empty());
    EXPECT_EQ(labels[0], "rx ring");
    EXPECT_EQ(kinds[0], FaultKind::out_of_bounds_right);
    EXPECT_EQ(changed(buffer.bytes().last(qemu_page)), 0) << "the neighbour in memory is whole";
    EXPECT_TRUE(rx.unmap());
    ASSERT_TRUE(edu().write_memory(rx.iova(), 8));
    EXPECT_NE(pci->poll_faults().value().reported, 0U);
    EXPECT_EQ(kinds.back(), FaultKind::use_after_unmap);
    EXPECT_TRUE(errors.empty());
}

TEST_F(QemuContainer, a_driver_may_wait_in_memory_for_what_a_register_write_causes) {
    ASSERT_NO_FATAL_FAILURE(open());
    if (IsSkipped())
        return;
    const CoherentBuffer ring = pci->allocate_coherent(qemu_page, "ring").value();
    std::ranges::fill(ring.bytes(), qemu_canary);
    edu().start(ring.iova(), 8);
    const volatile std::byte& last = ring.bytes()[7];
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (last == qemu_canary && std::chrono::steady_clock::now() < end)
        std::this_thread::yield();
    EXPECT_EQ(ring.bytes()[7], std::byte{0});
}

TEST_F(QemuContainer, a_small_buffer_of_the_callers_is_watched_to_the_byte) {
    ASSERT_NO_FATAL_FAILURE(open({.level = Level::exact, .placement = Placement::left}));
    if (IsSkipped())
        return;
    std::array<std::byte, 100> packet{};
    packet.fill(qemu_canary);
    Mapping rx = pci->map(packet, from_device, "packet").value();
    ASSERT_TRUE(edu().write_memory(rx.iova(), 100));
    ASSERT_TRUE(rx.sync_for_cpu());
    EXPECT_EQ(changed(packet), 100);
    EXPECT_TRUE(errors.empty());
    ASSERT_TRUE(rx.sync_for_device());
    ASSERT_TRUE(edu().write_memory(rx.iova(), 104));
    ASSERT_TRUE(rx.sync_for_cpu());
    EXPECT_EQ(errors, std::vector{DriverErrorKind::red_zone});
}

TEST_F(QemuContainer, devices_reach_memory_of_the_container_alone) {
    ASSERT_NO_FATAL_FAILURE(open());
    if (IsSkipped())
        return;
    alignas(qemu_page) static std::array<std::byte, qemu_page> own{};
    const auto mapped = pci->map(own, from_device);
    ASSERT_FALSE(mapped);
    EXPECT_EQ(mapped.error().code(), ErrorCode::out_of_range);
    ASSERT_NE(mapped.error().find("memory"), nullptr);
    EXPECT_EQ(*mapped.error().find("memory"), reinterpret_cast<std::uintptr_t>(own.data()));
    EXPECT_EQ(pci->allocate(std::size_t{1} << 40).error().code(), ErrorCode::no_memory);
    EXPECT_EQ(pci->allocate(0).error().code(), ErrorCode::empty);
    CoherentBuffer ring = pci->allocate_coherent(qemu_page, "ring").value();
    EXPECT_TRUE(edu().write_memory(ring.iova(), qemu_page - 1));
    EXPECT_EQ(pci->poll_faults().value().reported, 0U);
    const Bar bar = device->bar(0).value();
    EXPECT_EQ(bar.size(), std::uint64_t{1} << 20);
    EXPECT_EQ(pci->map_region(bar, 0, qemu_page, bidirectional).error().code(),
              ErrorCode::unsupported);
    EXPECT_EQ(device->bar(1).error().code(), ErrorCode::not_found);
    EXPECT_EQ(device->enable_interrupts(1).error().code(), ErrorCode::unsupported) << "MSI alone";
    std::byte byte{};
    EXPECT_EQ(device->read(ring.iova(), {&byte, 1}).error().code(), ErrorCode::unsupported);
    EXPECT_EQ(pci->attach("00:05.0").error().code(), ErrorCode::not_found);
    EXPECT_EQ(pci->attach("00:04.0").error().code(), ErrorCode::busy);
}

TEST_F(QemuContainer, objects_end_in_any_order) {
    ASSERT_NO_FATAL_FAILURE(open());
    if (IsSkipped())
        return;
    const Buffer buffer = pci->allocate(qemu_page).value();
    const Bar bar = device->bar(0).value();
    {
        const Mapping mapping = pci->map(buffer, from_device, "ring").value();
        EXPECT_TRUE(device->detach()) << "QEMU keeps what is mapped";
        EXPECT_EQ(bar.read32(0).error().code(), ErrorCode::refused);
        device.emplace(pci->attach("00:04.0").value());
        EXPECT_EQ(bar.read32(0).error().code(), ErrorCode::refused) << "a Bar of the one before";
        ASSERT_TRUE(edu().write_memory(mapping.iova(), 8));
        pci.reset();
        EXPECT_EQ(errors, std::vector{DriverErrorKind::leak});
    }
    std::ranges::fill(buffer.bytes(), qemu_canary);
    EXPECT_EQ(changed(buffer.bytes()), 0) << "the memory stays with its Buffer";
    EXPECT_EQ(device->bar(0).error().code(), ErrorCode::refused);
}

TEST_F(QemuContainer, any_thread_maps_and_accesses_registers) {
    ASSERT_NO_FATAL_FAILURE(open());
    if (IsSkipped())
        return;
    const Bar bar = device->bar(0).value();
    std::vector<std::jthread> threads;
    for (int each = 0; each != 2; ++each)
        threads.emplace_back([&] {
            for (int round = 0; round != 50; ++round) {
                const Buffer buffer = pci->allocate(qemu_page).value();
                const Mapping mapping = pci->map(buffer, from_device).value();
                EXPECT_EQ(bar.read32(0).value() & 0xff, 0xedU);
                EXPECT_TRUE(pci->poll_faults());
            }
        });
}

TEST(QemuStart, says_what_was_wrong) {
    const auto open = [](QemuConfig qemu) {
        return Container::open({.backend = Backend::qemu,
                                .qemu = std::move(qemu),
                                .environment = Environment::ignore});
    };
    const auto no_device = open({});
    ASSERT_FALSE(no_device);
    EXPECT_EQ(no_device.error().code(), ErrorCode::unsupported);
    EXPECT_NE(no_device.error().sentence().find("qemu.devices"), std::string_view::npos);
    const auto no_program = open({.devices = {"edu"}, .program = "qemu-that-is-not-there"});
    ASSERT_FALSE(no_program);
    EXPECT_EQ(no_program.error().code(), ErrorCode::not_found);
    EXPECT_NE(no_program.error().sentence().find("qemu-that-is-not-there"), std::string_view::npos);
    const auto small = open({.devices = {"edu"}, .ram = ByteCount(qemu_page)});
    ASSERT_FALSE(small);
    EXPECT_EQ(small.error().code(), ErrorCode::out_of_range);
    const auto unknown = open({.devices = {"no-such-device"}});
    ASSERT_FALSE(unknown);
    if (unknown.error().code() == ErrorCode::not_found)
        GTEST_SKIP() << "SKIPPED: " << unknown.error().sentence();
    EXPECT_NE(unknown.error().sentence().find("no-such-device"), std::string_view::npos)
        << unknown.error().sentence();
}

} // namespace
} // namespace moat::tests
