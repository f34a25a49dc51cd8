// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// vfio-user's messages as bytes, their order, and the channel that keeps descriptors with them.
#include "moat/core/text.hpp"

#include "machine/vfio_user/channel.hpp"

#include <cerrno>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

namespace moat::tests {
namespace {

using namespace machine::vfio_user;
using platform::FileDescriptor;

std::vector<std::byte> version_with(std::string_view json) {
    std::vector<std::byte> body(4 + json.size());
    body[2] = std::byte{1};
    std::memcpy(body.data() + 4, json.data(), json.size());
    return body;
}

TEST(VfioUserProtocol, capabilities_survive_the_journey) {
    const Capabilities sent = {.minor = 0,
                               .descriptors = 7,
                               .transfer = 65'536,
                               .maps = 12,
                               .twin_socket = true,
                               .twin_index = 3,
                               .write_multiple = true};
    const auto got = decode_version(encode_version(sent, Role::server));
    ASSERT_TRUE(got) << got.error();
    EXPECT_EQ(got->minor, 0U);
    EXPECT_EQ(got->descriptors, 7U);
    EXPECT_EQ(got->transfer, 65'536U);
    EXPECT_EQ(got->maps, 12U);
    EXPECT_TRUE(got->twin_socket);
    EXPECT_EQ(got->twin_index, 3U);
    EXPECT_TRUE(got->write_multiple);
}

TEST(VfioUserProtocol, a_version_without_json_has_the_defaults) {
    const auto got = decode_version(version_with(""));
    ASSERT_TRUE(got) << got.error();
    EXPECT_EQ(got->descriptors, 1U);
    EXPECT_EQ(got->transfer, most_transfer);
    EXPECT_FALSE(got->twin_socket);
}

TEST(VfioUserProtocol, refuses_versions_that_it_cannot_read) {
    using namespace std::string_view_literals;
    EXPECT_FALSE(decode_version({}));
    EXPECT_FALSE(decode_version(version_with("{}"))) << "no NUL";
    EXPECT_TRUE(decode_version(version_with("{}\0"sv)));
    EXPECT_FALSE(decode_version(version_with("{\"max_msg_fds\":\"x\"}\0"sv)));
    EXPECT_FALSE(decode_version(version_with("{\"max_data_xfer_size\" : 0}\0"sv)));
    auto other = version_with("");
    other[0] = std::byte{1};
    const auto refused = decode_version(other);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::unsupported);
}

TEST(VfioUserProtocol, requests_are_checked_before_they_act) {
    const auto refuses = [](Command command, const auto& body, int error) {
        const auto got = decode_request(command, bytes_of(body));
        return !got && got.error() == error;
    };
    EXPECT_TRUE(decode_request(Command::reset, {}));
    DmaMap map = {.flags = 3, .address = 0x1000, .size = 0x1000};
    EXPECT_TRUE(decode_request(Command::dma_map, bytes_of(map)));
    map.size = 0;
    EXPECT_TRUE(refuses(Command::dma_map, map, EINVAL));
    map.size = ~std::uint64_t{0xfff};
    map.address = 0x2000;
    EXPECT_TRUE(refuses(Command::dma_map, map, EINVAL)) << "it wraps";
    DmaUnmap unmap = {.flags = unmap_all};
    EXPECT_TRUE(decode_request(Command::dma_unmap, bytes_of(unmap)));
    unmap.size = 0x1000;
    EXPECT_TRUE(refuses(Command::dma_unmap, unmap, EINVAL));
    EXPECT_TRUE(refuses(Command::region_read,
                        RegionAccess{.count = static_cast<std::uint32_t>(most_transfer) + 1},
                        E2BIG));
    EXPECT_TRUE(refuses(Command::region_write, RegionAccess{.count = 4}, EINVAL)) << "no data";
    const SetIrqs bools = {.flags = irq_bools | irq_trigger, .count = 3};
    EXPECT_TRUE(refuses(Command::set_irqs, bools, EINVAL)) << "no bools";
    EXPECT_TRUE(refuses(Command::write_multi, std::uint64_t{1} << 60, EINVAL));
    EXPECT_TRUE(refuses(Command::feature, std::uint64_t{0}, ENOTSUP));
}

TEST(VfioUserProtocol, messages_out_of_order_end_the_connection) {
    Dialogue server(Role::server);
    EXPECT_FALSE(server.arrived({.command = Command::get_info})) << "before the version";
    EXPECT_TRUE(server.arrived({.command = Command::version}));
    EXPECT_FALSE(server.arrived({.command = Command::version})) << "twice";
    EXPECT_FALSE(server.arrived({.command = Command::dma_read})) << "a server's own command";
    const Header asked = server.ask(Command::dma_read);
    EXPECT_FALSE(server.arrived({.id = asked.id, .command = Command::dma_write, .flags = 1}));
    EXPECT_TRUE(server.arrived({.id = asked.id, .command = Command::dma_read, .flags = 1}));
    EXPECT_FALSE(server.arrived({.id = asked.id, .command = Command::dma_read, .flags = 1}))
        << "answered already";
    Dialogue client(Role::client);
    EXPECT_FALSE(client.arrived({.command = Command::region_read}));
    EXPECT_TRUE(client.arrived({.command = Command::dma_write}));
}

TEST(VfioUserProtocol, identities_in_use_are_not_used_again) {
    Dialogue client(Role::client);
    const Header first = client.ask(Command::get_info);
    for (unsigned turn = 0; turn != 70'000; ++turn) {
        const Header header = client.ask(Command::reset);
        ASSERT_NE(header.id, first.id);
        ASSERT_TRUE(client.arrived({.id = header.id, .command = Command::reset, .flags = 1}));
    }
}

class VfioUserChannel : public testing::Test {
  protected:
    VfioUserChannel() {
        auto ends = Channel::pair(std::chrono::milliseconds(20));
        EXPECT_TRUE(ends);
        channel.emplace(std::move(ends->first));
        other = std::move(ends->second);
    }

    void send_raw(const void* bytes, std::size_t size) const {
        ASSERT_EQ(::send(other.get(), bytes, size, 0), static_cast<ssize_t>(size));
    }

    std::optional<Channel> channel;
    FileDescriptor other;
};

TEST_F(VfioUserChannel, descriptors_stay_with_their_message) {
    Channel sender(std::move(other));
    const auto pipe_end = [] {
        std::array<int, 2> ends{};
        EXPECT_EQ(::pipe(ends.data()), 0);
        ::close(ends[1]);
        return FileDescriptor(ends[0]);
    };
    const FileDescriptor a = pipe_end();
    const FileDescriptor b = pipe_end();
    const std::array<int, 2> both = {a.get(), b.get()};
    const DmaMap map = {.size = 0x1000};
    ASSERT_TRUE(sender.send({.id = 1, .command = Command::dma_map}, {bytes_of(map)}));
    ASSERT_TRUE(sender.send({.id = 2, .command = Command::dma_map}, {bytes_of(map)}, both));
    ASSERT_TRUE(sender.send({.id = 3, .command = Command::reset}));
    ASSERT_TRUE(sender.send({.id = 4, .command = Command::dma_map}, {bytes_of(map)},
                            std::span(both).first(1)));
    constexpr std::array<std::size_t, 4> expected = {0, 2, 0, 1};
    for (std::size_t index = 0; index != expected.size(); ++index) {
        const auto message = channel->receive(std::chrono::milliseconds(0));
        ASSERT_TRUE(message && *message);
        EXPECT_EQ((*message)->header.id, index + 1);
        EXPECT_EQ((*message)->descriptors.size(), expected.at(index));
    }
}

TEST_F(VfioUserChannel, broken_frames_are_errors) {
    const Header tiny = {.command = Command::reset, .size = 15};
    send_raw(&tiny, sizeof tiny);
    const auto got = channel->receive(std::chrono::milliseconds(0));
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code(), ErrorCode::out_of_range);
}

TEST_F(VfioUserChannel, a_message_that_stops_in_its_middle_is_given_up) {
    const Header header = {.command = Command::reset, .size = 100};
    send_raw(&header, sizeof header);
    const auto got = channel->receive(std::chrono::milliseconds(0));
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code(), ErrorCode::busy);
    other.reset();
    const auto after = channel->receive(std::chrono::milliseconds(0));
    ASSERT_FALSE(after);
    EXPECT_EQ(after.error().code(), ErrorCode::io);
    EXPECT_FALSE(channel->ended());
}

TEST_F(VfioUserChannel, large_messages_arrive_whole) {
    const std::vector<std::byte> data(100'000, std::byte{0x5a});
    Channel sender(std::move(other));
    ASSERT_TRUE(sender.send({.id = 9, .command = Command::region_write}, {data}));
    const auto got = channel->receive(std::chrono::milliseconds(0));
    ASSERT_TRUE(got && *got);
    EXPECT_EQ((*got)->body, data);
}

} // namespace
} // namespace moat::tests
