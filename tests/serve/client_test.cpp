// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The client of vfio-user against servers that die, hang, lie about sizes or answer out of order:
// an error with a reason each time. Their answers are in the socket before the questions.
#include "moat/core/text.hpp"

#include "machine/vfio_user/remote_device.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using namespace machine::vfio_user;
using machine::Width;

class LyingServer : public testing::Test {
  protected:
    LyingServer() {
        auto ends = Channel::pair(std::chrono::milliseconds(20));
        EXPECT_TRUE(ends);
        client.emplace(std::move(ends->first));
        server.emplace(std::move(ends->second));
    }

    template <class... Pieces>
    void answer(Command command, const Pieces&... pieces) {
        EXPECT_TRUE(
            server->send({.id = next_++, .command = command, .flags = reply_type}, {pieces...}));
    }

    void answer_version(Capabilities capabilities = {}) {
        answer(Command::version, encode_version(capabilities, Role::server));
    }

    /// The answers of a function whose BAR 0 has `bar_bytes`.
    void answer_shape(std::uint64_t bar_bytes = 4096) {
        answer_version();
        const DeviceInfo info = {.flags = device_is_pci, .regions = 9, .interrupts = 3};
        answer(Command::get_info, bytes_of(info));
        for (std::uint32_t index = 0; index != 8; ++index) {
            const RegionInfo region = {.index = index,
                                       .size = index == 0   ? bar_bytes
                                               : index == 7 ? 256U
                                                            : 0U};
            answer(Command::get_region_info, bytes_of(region));
        }
        for (const std::uint32_t value : {0x11e81234U, 0x00ff0010U, 0U})
            answer_read(7, value);
        const IrqInfo interrupts = {.index = 2, .count = 1};
        answer(Command::get_irq_info, bytes_of(interrupts));
    }

    void answer_read(std::uint32_t region, std::uint32_t value) {
        const RegionAccess where = {.region = region, .count = 4};
        answer(Command::region_read, bytes_of(where), bytes_of(value));
    }

    [[nodiscard]] Result<std::unique_ptr<RemoteDevice>> negotiate() {
        return RemoteDevice::negotiate(*std::move(client));
    }

    void expect_failure(ErrorCode code) {
        const auto device = negotiate();
        ASSERT_FALSE(device);
        EXPECT_EQ(device.error().code(), code) << device.error();
    }

    std::optional<Channel> client;
    std::optional<Channel> server;

  private:
    std::uint16_t next_ = 1;
};

TEST_F(LyingServer, that_tells_the_truth_is_understood) {
    answer_shape();
    const auto device = negotiate();
    ASSERT_TRUE(device) << device.error();
    EXPECT_EQ((*device)->info().device, 0x11e8);
    EXPECT_EQ((*device)->info().class_code, 0x00ff00U);
    EXPECT_EQ((*device)->info().bars[0].size, ByteCount(4096));
    EXPECT_EQ((*device)->vectors(), 1U);
    answer_read(0, 0xed);
    EXPECT_EQ((*device)->read(0, 0, Width::bits32), 0xedU);
    EXPECT_FALSE((*device)->failure());
}

TEST_F(LyingServer, describes_what_a_list_shows) {
    answer_shape(16384);
    const auto device = negotiate();
    ASSERT_TRUE(device) << device.error();
    for (std::uint32_t index = 0; index != 9; ++index) {
        const RegionInfo region = {
            .flags = region_readable | region_mappable, .index = index, .size = 4096 * (index + 1)};
        answer(Command::get_region_info, bytes_of(region));
    }
    for (std::uint32_t index = 0; index != 3; ++index) {
        const IrqInfo interrupts = {.index = index, .count = index + 1};
        answer(Command::get_irq_info, bytes_of(interrupts));
    }
    answer_read(7, 0x11001af4);
    answer_read(7, 0x00ff0023);
    const auto survey = (*device)->survey();
    ASSERT_TRUE(survey) << survey.error();
    ASSERT_EQ(survey->regions.size(), 9U);
    EXPECT_EQ(survey->regions[8].size, 9 * 4096U);
    EXPECT_EQ(survey->regions[8].flags, region_readable | region_mappable);
    ASSERT_EQ(survey->interrupts.size(), 3U);
    EXPECT_EQ(survey->interrupts[2].count, 3U);
    EXPECT_EQ(survey->subsystem_vendor, 0x1af4);
    EXPECT_EQ(survey->subsystem_device, 0x1100);
    EXPECT_EQ(survey->revision, 0x23);
}

TEST_F(LyingServer, that_describes_another_region) {
    answer_version();
    const DeviceInfo info = {.flags = device_is_pci, .regions = 9, .interrupts = 3};
    answer(Command::get_info, bytes_of(info));
    const RegionInfo other = {.index = 3, .size = 4096};
    answer(Command::get_region_info, bytes_of(other));
    expect_failure(ErrorCode::mismatch);
}

TEST_F(LyingServer, that_is_gone) {
    server.reset();
    expect_failure(ErrorCode::io);
}

TEST_F(LyingServer, that_hangs) {
    expect_failure(ErrorCode::busy);
}

TEST_F(LyingServer, that_answers_too_little) {
    answer_version();
    answer(Command::get_info);
    expect_failure(ErrorCode::mismatch);
}

TEST_F(LyingServer, that_answers_out_of_order) {
    answer_version();
    answer(Command::get_region_info);
    expect_failure(ErrorCode::refused);
}

TEST_F(LyingServer, that_names_a_twin_socket_without_one) {
    answer_version({.twin_socket = true});
    expect_failure(ErrorCode::mismatch);
}

TEST_F(LyingServer, that_sends_a_clients_command) {
    ASSERT_TRUE(server->send({.id = 1, .command = Command::reset}));
    expect_failure(ErrorCode::refused);
}

TEST_F(LyingServer, whose_registers_end_early_reads_as_all_ones) {
    answer_shape(64);
    const auto device = negotiate();
    ASSERT_TRUE(device) << device.error();
    EXPECT_EQ((*device)->read(0, 0x98, Width::bits64), ~std::uint64_t{0});
    EXPECT_FALSE((*device)->failure()) << "nothing was asked";
    server.reset();
    EXPECT_EQ((*device)->read(0, 0, Width::bits32), 0xffff'ffffU);
    EXPECT_TRUE((*device)->failure());
}

TEST_F(LyingServer, whose_strange_dma_messages_are_refused) {
    answer_shape();
    const auto device = negotiate();
    ASSERT_TRUE(device) << device.error();
    const DmaAccess endless = {.address = ~std::uint64_t{0}, .count = 2};
    ASSERT_TRUE(server->send({.id = 77, .command = Command::dma_read}, {bytes_of(endless)}));
    const DmaAccess plain = {.address = 0x1000, .count = 8};
    ASSERT_TRUE(server->send({.id = 78, .command = Command::dma_read}, {bytes_of(plain)}));
    answer_read(0, 1);
    EXPECT_EQ((*device)->read(0, 0, Width::bits32), 1U);
    unsigned refused = 0;
    for (;;) {
        const auto message = server->receive(std::chrono::milliseconds(0));
        ASSERT_TRUE(message);
        if (!*message)
            break;
        refused += (*message)->header.failed() ? 1 : 0;
    }
    EXPECT_EQ(refused, 2U) << "one wraps, one has no bus to go to";
}

} // namespace
} // namespace moat::tests
