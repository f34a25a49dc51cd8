// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Session, as a program meets it: VFIO's files and ioctls, an edu device whose DMA engine the
// program drives, and what it is caught at.
#include "platform/memory_file.hpp"
#include "run/client_in_process.hpp"
#include "run/session.hpp"

#include <array>
#include <chrono>
#include <cstring>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <thread>

namespace moat::run {

namespace {

using tests::ClientInProcess;
using namespace std::chrono_literals;

constexpr std::uint64_t page = 4096;

/// Registers of edu's DMA engine, and the bits of its command.
constexpr std::uint64_t dma_source = 0x80;
constexpr std::uint64_t dma_destination = 0x88;
constexpr std::uint64_t dma_count = 0x90;
constexpr std::uint64_t dma_command = 0x98;
constexpr std::uint64_t edu_buffer = 0x40000;
constexpr std::uint64_t start_to_memory = 1 | 2;

/// A program with four pages of memory and an edu device, opened by VFIO's rules.
class EduProgram : public testing::Test {
  protected:
    EduProgram() { begin({}); }

    void begin(Options options) {
        options.devices = {DeviceChoice{.kind = kind_, .address = machine::Bdf(5, 0, 0)}};
        session_ = std::make_unique<Session>(options, client_);
        container_ = opened(session_->open("/dev/vfio/vfio"), 100);
        const File group =
            opened(session_->open("/dev/vfio/" + std::to_string(options.devices[0].group())), 101);
        int container = 100;
        ASSERT_EQ(call(group, VFIO_GROUP_SET_CONTAINER, container).value, 0);
        ASSERT_EQ(session_->ioctl(container_, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU).value, 0);
        std::array<char, 16> name{"0000:05:00.0"};
        device_ = opened(call(group, VFIO_GROUP_GET_DEVICE_FD, name), 102);
        group_ = group;
    }

    void begin_with(std::string injection) {
        Options options;
        options.inject.name = std::move(injection);
        begin(options);
    }

    [[nodiscard]] File opened(const Answer& answer, int descriptor) {
        EXPECT_NE(answer.opened, File::none) << answer.value;
        client_.files[descriptor] = answer.opened;
        return answer.opened;
    }

    template <class Argument>
    Answer call(File file, unsigned long request, Argument& argument) {
        return session_->ioctl(file, request, client_.at(argument));
    }

    std::int64_t map(std::uint64_t iova, std::uint64_t bytes, std::uint64_t offset = 0,
                     std::uint32_t flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE) {
        vfio_iommu_type1_dma_map argument = {
            .argsz = sizeof argument,
            .flags = flags,
            .vaddr = reinterpret_cast<std::uintptr_t>(memory_.bytes().data()) + offset,
            .iova = iova,
            .size = bytes};
        return call(container_, VFIO_IOMMU_MAP_DMA, argument).value;
    }

    std::int64_t unmap(std::uint64_t iova, std::uint64_t bytes) {
        std::array<std::uint64_t, 3> argument{24, iova, bytes}; // argsz and flags, iova, size
        return call(container_, VFIO_IOMMU_UNMAP_DMA, argument).value;
    }

    void set_bus_master() {
        const std::array<std::byte, 2> command{std::byte{6}, std::byte{0}};
        const std::uint64_t config = std::uint64_t{7} << 40;
        ASSERT_EQ(session_->write(device_, config + 4, command), 2);
    }

    /// The DMA engine's registers have 64 bits, the others 32.
    void store(std::uint64_t offset, std::uint64_t value) {
        const auto at = session_->window(device_, 0, page);
        ASSERT_TRUE(at);
        session_->store({.device = at->device, .region = at->region, .offset = offset},
                        std::as_bytes(std::span(&value, 1)).first(offset < dma_source ? 4 : 8));
    }

    template <class Register>
    void store_register(std::uint64_t offset, Register value) {
        session_->store({.device = 0, .region = 0, .offset = offset},
                        std::as_bytes(std::span(&value, 1)));
    }

    /// Lets the device write `bytes` of its buffer to `iova`, and waits until it has.
    void device_writes(std::uint64_t iova, std::uint64_t bytes) {
        store(dma_source, edu_buffer);
        store(dma_destination, iova);
        store(dma_count, bytes);
        store(dma_command, start_to_memory);
        std::uint64_t command = start_to_memory;
        const auto at = session_->window(device_, 0, page);
        while ((command & 1) != 0)
            session_->load({.device = at->device, .region = at->region, .offset = dma_command},
                           std::as_writable_bytes(std::span(&command, 1)));
    }

    std::string kind_ = "edu";
    platform::Mapping memory_ = *platform::Mapping::create(-1, ByteCount(4 * page));
    ClientInProcess client_{memory_.bytes()};
    std::unique_ptr<Session> session_;
    File container_ = File::none;
    File group_ = File::none;
    File device_ = File::none;
};

TEST_F(EduProgram, moves_data_to_the_mapped_memory) {
    std::ranges::fill(memory_.bytes(), std::byte{0xee});
    ASSERT_EQ(map(0x10000, page), 0);
    set_bus_master();
    device_writes(0x10000, 64);
    EXPECT_EQ(memory_.bytes()[63], std::byte{0});
    EXPECT_EQ(memory_.bytes()[64], std::byte{0xee});
    EXPECT_EQ(client_.words(), "");
}

TEST_F(EduProgram, reports_an_overrun_with_the_stack_of_the_map) {
    ASSERT_EQ(map(0x10000, page), 0);
    set_bus_master();
    device_writes(0x10000 + page - 16, 64);
    const std::string words = client_.words();
    EXPECT_NE(words.find("dma-buffer-overflow"), std::string::npos) << words;
    EXPECT_NE(words.find("by device edu (0000:05:00.0)"), std::string::npos) << words;
    EXPECT_NE(words.find("0x1234"), std::string::npos) << words;
    EXPECT_NE(words.find("last register write by thread 7"), std::string::npos) << words;
}

TEST_F(EduProgram, reports_an_access_after_the_unmap) {
    ASSERT_EQ(map(0x10000, page), 0);
    ASSERT_EQ(unmap(0x10000, page), 0);
    set_bus_master();
    device_writes(0x10000, 64);
    EXPECT_NE(client_.words().find("dma-use-after-unmap"), std::string::npos) << client_.words();
}

TEST_F(EduProgram, reports_a_write_to_what_was_mapped_for_reading) {
    ASSERT_EQ(map(0x10000, page, 0, VFIO_DMA_MAP_FLAG_READ), 0);
    set_bus_master();
    device_writes(0x10000, 64);
    EXPECT_NE(client_.words().find("dma-permission"), std::string::npos) << client_.words();
}

TEST_F(EduProgram, reports_dma_before_bus_mastering_and_moves_nothing) {
    std::ranges::fill(memory_.bytes(), std::byte{0xee});
    ASSERT_EQ(map(0x10000, page), 0);
    device_writes(0x10000, 64);
    EXPECT_NE(client_.words().find("dma-before-bus-master"), std::string::npos) << client_.words();
    EXPECT_EQ(memory_.bytes()[0], std::byte{0xee});
}

TEST_F(EduProgram, reports_memory_that_the_program_unmapped_itself) {
    ASSERT_EQ(map(0x10000, 4 * page), 0);
    set_bus_master();
    client_.shrink(page);
    device_writes(0x10000 + 2 * page, 64);
    EXPECT_NE(client_.words().find("dma-memory-gone"), std::string::npos) << client_.words();
}

TEST_F(EduProgram, reports_an_unmap_of_memory_that_a_command_uses) {
    begin_with("hang");
    ASSERT_EQ(map(0x10000, page), 0);
    ASSERT_EQ(map(0x20000, page), 0);
    set_bus_master();
    store(dma_source, edu_buffer);
    store(dma_destination, 0x10000);
    store(dma_count, 64);
    ASSERT_EQ(unmap(0x10000, page), 0);
    ASSERT_EQ(map(0x10000, page), 0);
    EXPECT_EQ(client_.words(), "") << "the command has not begun";
    store(dma_command, start_to_memory);
    ASSERT_EQ(unmap(0x20000, page), 0);
    EXPECT_EQ(client_.words(), "") << "other memory";
    ASSERT_EQ(unmap(0x10000, page), 0);
    const std::string words = client_.words();
    EXPECT_NE(words.find("unmap-in-flight: the program unmapped memory at 0x10000"), words.npos)
        << words;
    EXPECT_NE(words.find("unmapped by thread 7"), words.npos) << words;
}

TEST_F(EduProgram, may_unmap_what_a_device_used_before_a_reset) {
    begin_with("hang");
    ASSERT_EQ(map(0x10000, page), 0);
    set_bus_master();
    store(dma_source, edu_buffer);
    store(dma_destination, 0x10000);
    store(dma_count, 64);
    store(dma_command, start_to_memory);
    ASSERT_EQ(session_->ioctl(device_, VFIO_DEVICE_RESET, 0).value, 0);
    ASSERT_EQ(unmap(0x10000, page), 0);
    EXPECT_EQ(client_.words(), "");
}

TEST_F(EduProgram, reports_a_doorbell_past_the_queue) {
    kind_ = "nvme";
    begin({});
    ASSERT_EQ(map(0x10000, 2 * page), 0);
    set_bus_master();
    store_register<std::uint32_t>(0x24, 3U << 16 | 3); // queues of four entries
    store_register<std::uint64_t>(0x28, 0x10000);
    store_register<std::uint64_t>(0x30, 0x11000);
    store_register<std::uint32_t>(0x14, 4U << 20 | 6U << 16 | 1);
    std::uint32_t status = 0;
    while ((status & 1) == 0)
        session_->load({.device = 0, .region = 0, .offset = 0x1c},
                       std::as_writable_bytes(std::span(&status, 1)));
    EXPECT_EQ(client_.words(), "");
    store_register<std::uint32_t>(0x1000, 4);
    const std::string words = client_.words();
    EXPECT_NE(words.find("doorbell-past-queue: "), words.npos) << words;
    EXPECT_NE(words.find("queue 0, value 0x4"), words.npos) << words;
    EXPECT_NE(words.find("last register write by thread 7"), words.npos) << words;
}

TEST_F(EduProgram, loses_accesses_while_memory_is_disabled) {
    const std::uint64_t command_register = (std::uint64_t{7} << 40) + 4;
    std::array<std::byte, 4> bytes{};
    ASSERT_EQ(session_->read(device_, 0, bytes), 4);
    for (const std::byte command : {std::byte{0}, std::byte{2}}) {
        const bool enabled = command != std::byte{0};
        ASSERT_EQ(session_->write(device_, command_register, std::span(&command, 1)), 1);
        EXPECT_EQ(session_->read(device_, 0, bytes), enabled ? 4 : -EIO);
        EXPECT_EQ(session_->write(device_, 4, bytes), enabled ? 4 : -EIO);
        EXPECT_EQ(session_->read(device_, command_register, bytes), 4);
        const auto at = session_->window(device_, 0, page);
        ASSERT_TRUE(at);
        session_->load(*at, bytes);
        EXPECT_EQ(bytes[0] == std::byte{0xff}, !enabled);
        EXPECT_EQ(session_->read(device_, std::uint64_t{1} << 30, bytes), -EINVAL) << "outside";
    }
}

TEST_F(EduProgram, prints_a_repeated_finding_once) {
    ASSERT_EQ(map(0x10000, page), 0);
    set_bus_master();
    for (int i = 0; i != 10; ++i)
        device_writes(0x10000 + page, 64);
    const std::string words = client_.words();
    const auto first = words.find("ERROR: ");
    ASSERT_NE(first, std::string::npos) << words;
    EXPECT_EQ(words.find("ERROR: ", first + 1), std::string::npos) << words;
}

TEST_F(EduProgram, is_told_that_the_map_of_its_address_had_failed) {
    ASSERT_EQ(map(0x10000, page, 4 * page), -EFAULT);
    set_bus_master();
    device_writes(0x10000, 64);
    EXPECT_NE(client_.words().find("note: the program tried to map 0x10000 (4096 bytes); that "
                                   "failed (Bad address)"),
              std::string::npos)
        << client_.words();
}

TEST_F(EduProgram, refuses_a_map_of_memory_that_is_not_there) {
    EXPECT_EQ(map(0x10000, page, 4 * page), -EFAULT);
    EXPECT_EQ(map(0x10000, 8 * page), -EFAULT);
    EXPECT_EQ(map(0x10000, page), 0);
}

TEST_F(EduProgram, signals_the_eventfd_of_an_interrupt) {
    const int event = ::eventfd(0, EFD_CLOEXEC);

    std::array<std::uint32_t, 6> argument{
        24,
        VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        VFIO_PCI_MSIX_IRQ_INDEX,
        0,
        1,
        static_cast<std::uint32_t>(event)}; // argsz, flags, index, start, count, descriptor
    ASSERT_EQ(call(device_, VFIO_DEVICE_SET_IRQS, argument).value, 0);
    store(0x60, 1); // raises an interrupt
    pollfd ready = {.fd = event, .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&ready, 1, 10'000), 1);
    ::close(event);
}

TEST_F(EduProgram, finds_bus_mastering_off_after_the_last_close) {
    set_bus_master();
    session_->close(device_);
    std::array<char, 16> name{"0000:05:00.0"};
    device_ = opened(call(group_, VFIO_GROUP_GET_DEVICE_FD, name), 103);
    std::array<std::byte, 2> command{};
    const std::uint64_t config = std::uint64_t{7} << 40;
    ASSERT_EQ(session_->read(device_, config + 4, command), 2);
    EXPECT_EQ(command[0] & std::byte{4}, std::byte{0});
}

/// The program's allocator may keep its own data there, and change it during the call.
TEST_F(EduProgram, writes_nothing_behind_a_short_argument) {
    struct {
        std::uint32_t argsz = 16; // less than the structure: the answer says how much is needed
        std::uint32_t flags = 0;
        std::uint64_t page_sizes = 0;
        std::array<std::byte, 64> behind{};
    } argument;

    client_.written = {};
    ASSERT_EQ(call(container_, VFIO_IOMMU_GET_INFO, argument).value, 0);
    EXPECT_NE(argument.page_sizes, 0);
    EXPECT_LE(client_.written.second, reinterpret_cast<std::uintptr_t>(&argument.behind));
}

TEST_F(EduProgram, has_no_device_files_of_other_names) {
    for (const char* const path : {"/dev/vfio/vfio0", "/dev/vfio/", "/dev/vfio/devices/vfio9",
                                   "/etc/passwd", "", "/dev/vfio/99999999999999999999"}) {
        const Answer answer = session_->open(path);
        EXPECT_EQ(answer.opened, File::none) << path;
        EXPECT_EQ(answer.value, 0) << path;
    }
}

} // namespace

} // namespace moat::run
