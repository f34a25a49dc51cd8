// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Child processes, and what they share with their parent: memory files and sockets.
#include "platform/child_process.hpp"
#include "platform/memory_file.hpp"
#include "platform/stream_socket.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <gtest/gtest.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace moat::platform {
namespace {

Result<ChildProcess> shell(const std::string& script, std::vector<int> descriptors = {}) {
    const std::array<std::string, 3> arguments = {"sh", "-c", script};
    return ChildProcess::start(arguments, descriptors);
}

Result<StreamSocket> impatient_socket() {
    return StreamSocket::create(std::chrono::milliseconds(50));
}

TEST(ChildProcess, status_and_words_are_kept) {
    auto child = shell("echo to nobody; echo wrong >&2; exit 7");
    ASSERT_TRUE(child);
    ASSERT_TRUE(child->ended_within(std::chrono::seconds(20)));
    EXPECT_EQ(child->end().status, 7);
    EXPECT_EQ(child->words(), "wrong\n");
}

TEST(ChildProcess, reports_a_missing_program) {
    const std::array<std::string, 1> arguments = {"moat-has-no-such-program"};
    EXPECT_EQ(ChildProcess::start(arguments, {}).error().code(), ErrorCode::not_found);
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "and no child is left";
}

TEST(ChildProcess, is_ended_by_its_number) {
    pid_t number = 0;
    {
        auto child = shell("trap '' TERM; exec sleep 3600");
        ASSERT_TRUE(child);
        number = child->number();
        EXPECT_FALSE(child->ended());
        EXPECT_FALSE(child->ended_within(std::chrono::milliseconds(1)));
        EXPECT_EQ(child->end().signal, SIGKILL);
        EXPECT_EQ(child->end().signal, SIGKILL);
    }
    EXPECT_EQ(::kill(number, 0), -1);
    EXPECT_EQ(errno, ESRCH);
}

TEST(ChildProcess, ends_when_it_goes_out_of_scope) {
    pid_t number = 0;
    {
        auto child = shell("exec sleep 3600");
        ASSERT_TRUE(child);
        ChildProcess moved = std::move(*child);
        number = moved.number();
        EXPECT_EQ(::kill(number, 0), 0);
    }
    EXPECT_EQ(::kill(number, 0), -1);
}

TEST(ChildProcess, has_the_descriptors_it_is_given_and_no_others) {
    auto socket = *StreamSocket::create(std::chrono::seconds(20));
    const auto secret = *MemoryFile::create("secret", ByteCount(4096));
    auto child = shell("ls /proc/self/fd/" + std::to_string(secret.descriptor()) +
                           " && echo has it >&" + std::to_string(socket.child()) +
                           "; echo told >&" + std::to_string(socket.child()),
                       {socket.child()});
    ASSERT_TRUE(child);
    socket.close_child();
    EXPECT_EQ(socket.receive_until('\n'), "told");
}

TEST(MemoryFile, is_shared_with_a_child_and_keeps_its_size) {
    auto socket = *StreamSocket::create(std::chrono::seconds(20));
    auto file = MemoryFile::create("shared", ByteCount(8192));
    ASSERT_TRUE(file);
    EXPECT_EQ(file->bytes().size(), 8192U);
    EXPECT_EQ(file->bytes()[8191], std::byte{0});
    auto child = shell("printf moat | dd of=" + file->path() +
                           " conv=notrunc status=none; echo x >&" + std::to_string(socket.child()),
                       {file->descriptor(), socket.child()});
    ASSERT_TRUE(child);
    socket.close_child();
    ASSERT_EQ(socket.receive_until('\n'), "x");
    EXPECT_EQ(std::memcmp(file->bytes().data(), "moat", 4), 0) << child->words();
    EXPECT_EQ(::ftruncate(file->descriptor(), 4096), -1);
    EXPECT_EQ(::ftruncate(file->descriptor(), 16384), -1);
}

TEST(MemoryFile, zeroed_pages_are_zero_and_their_neighbours_are_not) {
    constexpr std::size_t page = 4096;
    for (const std::size_t pages : {1U, 64U, 65U, 1000U}) {
        const auto file = *MemoryFile::create("zeroed", ByteCount((pages + 2) * page));
        std::ranges::fill(file.bytes(), std::byte{1});
        zero_pages(file.bytes().subspan(page, pages * page));
        EXPECT_EQ(std::ranges::count(file.bytes(), std::byte{1}), 8192) << pages;
        EXPECT_EQ(file.bytes().front(), std::byte{1});
        EXPECT_EQ(file.bytes().back(), std::byte{1});
    }
}

TEST(MemoryFile, needs_a_size) {
    EXPECT_EQ(MemoryFile::create("empty", ByteCount(0)).error().code(), ErrorCode::empty);
}

TEST(StreamSocket, lines_in_any_pieces) {
    auto socket = *StreamSocket::create(std::chrono::seconds(20));
    for (const std::string_view piece : {"a", "b\ncd\n\nef", "\n"})
        ASSERT_EQ(::write(socket.child(), piece.data(), piece.size()), ssize_t(piece.size()));
    for (const std::string_view line : {"ab", "cd", "", "ef"})
        EXPECT_EQ(socket.receive_until('\n'), line);
}

TEST(StreamSocket, patience_ends) {
    auto socket = *impatient_socket();
    EXPECT_EQ(socket.receive_until('\n').error().code(), ErrorCode::busy);
    const std::string much(std::size_t{4} << 20, 'x');
    EXPECT_EQ(socket.send(much).error().code(), ErrorCode::busy) << "nobody reads";
}

TEST(StreamSocket, line_that_does_not_end) {
    auto socket = *StreamSocket::create(std::chrono::seconds(20));
    const std::string much(10'000, 'x');
    ASSERT_EQ(::write(socket.child(), much.data(), much.size()), ssize_t(much.size()));
    EXPECT_EQ(socket.receive_until('\n', 256).error().code(), ErrorCode::limit);
}

TEST(StreamSocket, other_end_is_closed) {
    auto socket = *StreamSocket::create(std::chrono::seconds(20));
    ASSERT_EQ(::write(socket.child(), "last\n", 5), 5);
    socket.close_child();
    EXPECT_EQ(socket.receive_until('\n'), "last") << "what was sent before is read still";
    EXPECT_EQ(socket.receive_until('\n').error().code(), ErrorCode::io);
    EXPECT_EQ(socket.send("x").error().code(), ErrorCode::io);
}

} // namespace
} // namespace moat::platform
