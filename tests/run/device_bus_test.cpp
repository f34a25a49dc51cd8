// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DeviceBus beside a device that does what a test asks: verdicts on interrupts, and on accesses of
// a disabled device. Strays: session_test.cpp.
#include "platform/memory_file.hpp"
#include "run/client_in_process.hpp"
#include "run/device_bus.hpp"

#include <array>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace moat::run {

namespace {

using machine::soft::InterruptKind;

class StubDevice final : public machine::soft::DeviceModel {
  public:
    bool is_disabled = false;

    [[nodiscard]] machine::FunctionInfo info() const override { return {}; }

    [[nodiscard]] unsigned vectors() const override { return 2; }

    [[nodiscard]] std::uint64_t read(unsigned /*bar*/, std::uint64_t /*offset*/,
                                     machine::Width /*width*/) override {
        return 0;
    }

    void write(unsigned /*bar*/, std::uint64_t /*offset*/, machine::Width /*width*/,
               std::uint64_t /*value*/) override {}

    [[nodiscard]] bool step(machine::soft::BusMaster& /*bus*/) override { return false; }

    void reset() override {}

    [[nodiscard]] bool disabled() const override { return is_disabled; }

    [[nodiscard]] bool uses(IovaRange /*range*/, machine::soft::BusMaster& /*bus*/) const override {
        return true;
    }
};

constexpr std::uint64_t mapped_at = 0x10000;
constexpr std::uint64_t memory_bytes = 4096;
constexpr auto unnamed = [](std::uintptr_t, fault::FrameSink) {};

class BusOfDevice : public testing::Test {
  protected:
    BusOfDevice() {
        const std::array<std::byte, 1> memory_and_master{std::byte{6}};
        EXPECT_TRUE(face.write(machine::soft::Face::config_region, 4, memory_and_master));
        space.map({.map = {.range = IovaRange(Iova(mapped_at), ByteCount(memory_bytes)),
                           .memory = reinterpret_cast<std::uintptr_t>(memory.bytes().data()),
                           .allows = fault::Allows::read_write}});
        bus.attach(&space);
        bus.set_interrupt(InterruptKind::msix, 0, ::dup(event));
    }

    ~BusOfDevice() override { ::close(event); }

    void take() const {
        std::uint64_t count = 0;
        EXPECT_EQ(::read(event, &count, sizeof count), 8);
    }

    int event = ::eventfd(0, EFD_CLOEXEC);
    platform::Mapping memory = *platform::Mapping::create(-1, ByteCount(memory_bytes));
    tests::ClientInProcess client{memory.bytes()};
    Tally tally{};
    Findings findings{"", tally, unnamed, [this](std::string_view text) { client.print(text); }};
    Recorder recorder{"", unnamed};
    AddressSpace space;
    StubDevice device;
    machine::soft::Face face{machine::Bdf(0, 5, 0), device};
    DeviceBus bus{face, "device 0000:00:05.0", client, findings, recorder, tally};
};

TEST_F(BusOfDevice, reports_an_access_of_a_disabled_device) {
    std::array<std::byte, 4> bytes{};
    EXPECT_EQ(bus.write(Iova(mapped_at), bytes).value(), 4);
    EXPECT_EQ(client.words(), "");
    device.is_disabled = true;
    EXPECT_EQ(bus.read(Iova(mapped_at), bytes).value(), 4);
    EXPECT_NE(client.words().find("dma-while-disabled"), std::string::npos) << client.words();
}

TEST_F(BusOfDevice, blames_the_device_if_it_is_disabled_and_no_bus_master) {
    const std::array<std::byte, 1> memory_alone{std::byte{2}};
    ASSERT_TRUE(face.write(machine::soft::Face::config_region, 4, memory_alone));
    device.is_disabled = true;
    std::array<std::byte, 4> bytes{};
    EXPECT_EQ(bus.read(Iova(mapped_at), bytes).value(), 0) << "nothing moves";
    EXPECT_NE(client.words().find("dma-while-disabled"), std::string::npos) << client.words();
    EXPECT_EQ(client.words().find("before-bus-master"), std::string::npos) << client.words();
}

TEST_F(BusOfDevice, reports_an_unmap_unless_the_device_is_removed) {
    const IovaRange range{Iova(mapped_at), ByteCount(memory_bytes)};
    face.inject(machine::soft::Malfunction::removed);
    bus.note_unmap(range, {});
    EXPECT_EQ(client.words(), "");
    face.inject(machine::soft::Malfunction::none);
    bus.note_unmap(range, {});
    EXPECT_NE(client.words().find("unmap-in-flight"), std::string::npos) << client.words();
}

TEST_F(BusOfDevice, counts_an_interrupt_that_nobody_took_once) {
    bus.interrupt(0);
    bus.interrupt(0);
    bus.interrupt(1); // not enabled
    bus.count_untaken();
    EXPECT_EQ(tally.untaken, 1U);
    bus.count_untaken();
    bus.set_interrupt(InterruptKind::msix, 0, -1);
    EXPECT_EQ(tally.untaken, 1U);
}

TEST_F(BusOfDevice, counts_an_interrupt_that_is_disabled_before_anybody_took_it) {
    bus.interrupt(0);
    bus.set_interrupt(InterruptKind::msix, 0, -1);
    EXPECT_EQ(tally.untaken, 1U);
}

TEST_F(BusOfDevice, does_not_count_interrupts_that_were_taken_or_never_sent) {
    bus.count_untaken();
    EXPECT_EQ(tally.untaken, 0U) << "never sent";
    bus.interrupt(0);
    take();
    bus.interrupt(0);
    bus.interrupt(0);
    bus.count_untaken();
    EXPECT_EQ(tally.untaken, 0U) << "the first was taken";
    bus.interrupt(0);
    take();
    bus.set_interrupt(InterruptKind::msix, 0, -1);
    EXPECT_EQ(tally.untaken, 0U) << "the last was taken";
}

} // namespace

} // namespace moat::run
