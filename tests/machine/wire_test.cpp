// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The wire of QEMU's network devices: what it returns, when the other end reads late.
#include "machine/qemu/wire.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <vector>

namespace moat::tests {
namespace {

using machine::qemu::Wire;

TEST(Wire, returns_all_bytes_in_order_however_late_they_are_read) {
    const auto wire = *Wire::create();
    std::vector<std::byte> sent(std::size_t{3} << 20);
    for (std::size_t i = 0; i != sent.size(); ++i)
        sent[i] = static_cast<std::byte>(i ^ i >> 8 ^ i >> 16);
    std::vector<std::byte> received;
    std::size_t done = 0;
    while (received.size() != sent.size()) {
        // Until both directions of the stream are full.
        for (bool moves = true; moves;) {
            const ssize_t count = ::send(wire->child(), sent.data() + done,
                                         std::min<std::size_t>(sent.size() - done, 50000),
                                         MSG_DONTWAIT | MSG_NOSIGNAL);
            moves = count > 0;
            done += moves ? static_cast<std::size_t>(count) : 0;
            wire->pump();
        }
        std::vector<std::byte> piece(30000);
        const ssize_t count = ::recv(wire->child(), piece.data(), piece.size(), MSG_DONTWAIT);
        ASSERT_GT(count, 0);
        received.insert(received.end(), piece.begin(), piece.begin() + count);
        wire->pump();
    }
    EXPECT_EQ(received, sent);
}

TEST(Wire, survives_the_end_of_its_device) {
    const auto wire = *Wire::create();
    ASSERT_EQ(::send(wire->child(), "frame", 5, MSG_DONTWAIT), 5);
    wire->close_child();
    wire->pump();
    wire->pump();
}

} // namespace
} // namespace moat::tests
