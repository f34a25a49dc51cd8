// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Captured sessions of QEMU 11.1's vfio-user-pci with a Linux guest, replayed against the soft NVMe
// controller, and the lines of captures. tests/serve/data/README.md says how they were made.
#include "replayed_client.hpp"
#include "run/device_kinds.hpp"
#include "run/options.hpp"
#include "serve/conversation.hpp"

#include <array>
#include <gtest/gtest.h>
#include <thread>

namespace moat::tests {
namespace {

using namespace machine::vfio_user;

constexpr auto no_symbols = [](std::uintptr_t, fault::FrameSink) {};

/// `moat serve --device nvme`, and the replay of a session with it.
class ReplayedNvme {
  public:
    ReplayedNvme() {
        auto ends = Channel::pair();
        EXPECT_TRUE(ends);
        client_ = std::move(ends->second);
        server_ = std::thread([this, channel = std::move(ends->first)]() mutable {
            serve::Conversation conversation(stage_, std::move(channel));
            (void)conversation.run(-1);
        });
    }

    ~ReplayedNvme() { end(); }

    ReplayedNvme(const ReplayedNvme&) = delete;
    ReplayedNvme& operator=(const ReplayedNvme&) = delete;

    [[nodiscard]] Channel take_client() { return Channel(std::move(client_)); }

    /// Waits for the server; the client's channel is closed before.
    void end() {
        client_.reset();
        if (server_.joinable())
            server_.join();
    }

    std::string printed;
    run::Tally tally{};

  private:
    platform::FileDescriptor client_;
    run::SoftDevice device_ = run::make_device(*run::parse_device("nvme", 0), {});
    run::Findings findings_{"", tally, no_symbols,
                            [this](std::string_view text) { printed += text; }};
    run::Recorder recorder_{"", no_symbols};
    serve::Stage stage_ = {
        .face = *device_.face,
        .reports = {.name = "nvme",
                    .findings = findings_,
                    .recorder = recorder_,
                    .tally = tally,
                    .print = [this](std::string_view text) { printed += text; }}};
    std::thread server_;
};

struct Session {
    const char* name;
    std::uint64_t least_dma_messages;
    std::uint64_t least_maps;
};

class QemuSession : public testing::TestWithParam<Session> {};

TEST_P(QemuSession, is_answered_byte_for_byte) {
    const auto& session = GetParam();
    const Capture capture =
        Capture::read(std::string(MOAT_TEST_DATA) + '/' + session.name + ".messages");
    ASSERT_EQ(capture.problem, "");
    ReplayedNvme served;
    {
        ReplayedClient client(served.take_client(), capture);
        EXPECT_EQ(client.play(), "");
        EXPECT_GE(client.dma_messages(), session.least_dma_messages);
    }
    served.end();
    EXPECT_EQ(served.tally.findings, 0U) << served.printed;
    EXPECT_GE(served.tally.maps, session.least_maps);
}

INSTANTIATE_TEST_SUITE_P(Sessions, QemuSession,
                         testing::Values(Session{"qemu_11_1_plain", 40, 2},
                                         Session{"qemu_11_1_viommu", 40, 20}),
                         [](const auto& each) { return std::string(each.param.name); });

/// A replay that accepts anything would show nothing.
TEST(ReplayedClient, sees_a_single_other_byte) {
    Capture capture = Capture::read(std::string(MOAT_TEST_DATA) + "/qemu_11_1_plain.messages");
    const auto read = std::ranges::find_if(capture.messages, [](const CapturedMessage& each) {
        return each.from == Role::server && each.header.command == Command::region_read;
    });
    ASSERT_NE(read, capture.messages.end());
    read->body.back() ^= std::byte{1};
    ReplayedNvme served;
    ReplayedClient client(served.take_client(), capture);
    EXPECT_NE(client.play(), "");
}

TEST(CapturedLine, keeps_a_message) {
    const std::vector<std::byte> bodies[] = {{},
                                             {std::byte{0x2a}},
                                             std::vector<std::byte>(7, std::byte{0}),
                                             std::vector<std::byte>(4096, std::byte{0xff}),
                                             [] {
                                                 std::vector<std::byte> mixed(20, std::byte{0});
                                                 mixed[0] = mixed[9] = mixed[19] = std::byte{0xab};
                                                 return mixed;
                                             }()};
    for (const auto& body : bodies)
        for (const Role from : {Role::client, Role::server}) {
            const Header header = {.id = 0xffff,
                                   .command = Command::dma_write,
                                   .size = static_cast<std::uint32_t>(sizeof(Header) + body.size()),
                                   .flags = reply_type | error_bit,
                                   .error = 22};
            const std::string line = line_of(from, header, 3, body);
            const auto message = message_of(line);
            ASSERT_TRUE(message) << line;
            EXPECT_EQ(message->from, from);
            EXPECT_TRUE(std::ranges::equal(bytes_of(message->header), bytes_of(header))) << line;
            EXPECT_EQ(message->descriptors, 3U);
            EXPECT_EQ(message->body, body) << line;
        }
}

TEST(CapturedLine, is_as_documented) {
    std::vector<std::byte> body(20, std::byte{0});
    body[0] = std::byte{1};
    const Header map = {.id = 7, .command = Command::dma_map};
    EXPECT_EQ(line_of(Role::client, map, 1, body), "> 7 dma-map 0 0 1 01 00*19");
    const Header refused = {.id = 7, .command = Command{19}, .flags = 0x21, .error = 95};
    EXPECT_EQ(line_of(Role::server, refused, 0, {}), "< 7 19 21 95 0");
}

TEST(CapturedLine, is_refused_where_it_is_wrong) {
    for (const char* const line :
         {"", ">", "= 1 reset 0 0 0", "> 1 jump 0 0 0", "> 65536 reset 0 0 0", "> 1 reset 0 0 17",
          "> 1 reset 0 0 0 0", "> 1 reset 0 0 0 0g", "> 1 reset 0 0 0 00*", "> 1 reset 0 0 0 00*x",
          "> 1 reset 0 0 0 00*0", "> 1 reset 0 0 0 0000*2", "> 1 reset 0 0 0 00*4294967295",
          "> 1 reset 0 0 0  00"})
        EXPECT_FALSE(message_of(line)) << line;
}

} // namespace
} // namespace moat::tests
