// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A QEMU that is missing, crashes, hangs or answers nonsense: a clear error in bounded time, and no
// process remains.
#include "qemu.hpp"

#include <array>
#include <csignal>
#include <filesystem>
#include <poll.h>
#include <set>
#include <string>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace moat::tests {
namespace {

using namespace moat::machine;

struct Outcome {
    Error error;
    std::string words;
};

Outcome start_fake(const std::string& mode,
                   std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    Outcome outcome{{ErrorCode::io, "it started"}, {}};
    const auto machine = qemu::QemuMachine::start({.program = MOAT_FAKE_QEMU,
                                                   .arguments = {"--fake=" + mode},
                                                   .patience = patience,
                                                   .words = &outcome.words});
    if (machine)
        ADD_FAILURE() << mode << ": this is no QEMU";
    else
        outcome.error = machine.error();
    return outcome;
}

/// No child remains: each was killed and waited for.
void expect_no_children() {
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
}

class QemuFailureTest : public ::testing::Test {
  protected:
    void TearDown() override { expect_no_children(); }
};

TEST_F(QemuFailureTest, missing_program_is_an_error) {
    const auto machine = qemu::QemuMachine::start({.program = "qemu-that-is-not-there"});
    ASSERT_FALSE(machine);
    EXPECT_EQ(machine.error().code(), ErrorCode::not_found);
}

TEST_F(QemuFailureTest, exits_at_once) {
    const Outcome outcome = start_fake("exits");
    EXPECT_EQ(outcome.error.sentence(), "QEMU exited");
    EXPECT_EQ(outcome.words, "fake: exits\n");
}

TEST_F(QemuFailureTest, dies_at_work) {
    const Outcome outcome = start_fake("dies");
    EXPECT_EQ(outcome.error.sentence(), "QEMU exited");
    ASSERT_NE(outcome.error.find("signal"), nullptr);
    EXPECT_EQ(*outcome.error.find("signal"), std::uint64_t{SIGABRT});
}

TEST_F(QemuFailureTest, process_that_hangs_is_killed) {
    const Outcome outcome = start_fake("hangs", std::chrono::milliseconds(50));
    EXPECT_EQ(outcome.error.sentence(), "QEMU did not answer in time; moat killed it");
    ASSERT_NE(outcome.error.find("process"), nullptr);
    EXPECT_EQ(::kill(static_cast<pid_t>(*outcome.error.find("process")), 0), -1);
}

TEST_F(QemuFailureTest, talks_nonsense) {
    for (const std::string_view mode : {"garbage", "endless"})
        EXPECT_EQ(start_fake(std::string(mode)).error.sentence(),
                  "QEMU answers with something that is not qtest")
            << mode;
    EXPECT_EQ(start_fake("refuses").error.sentence(), "QEMU rejected a qtest command");
    for (const std::string_view mode : {"no-value", "too-wide"})
        EXPECT_EQ(start_fake(std::string(mode)).error.sentence(),
                  "QEMU answered a read without a value")
            << mode;
}

TEST_F(QemuFailureTest, floods_its_standard_error) {
    const Outcome outcome = start_fake("floods");
    EXPECT_EQ(outcome.error.sentence(), "QEMU exited");
    EXPECT_EQ(outcome.words.size(), 4096U);
}

TEST_F(QemuFailureTest, machine_that_makes_no_sense) {
    EXPECT_EQ(start_fake("zeros").error.sentence(), "no VT-d unit at these registers");
    EXPECT_EQ(start_fake("bridges").error.sentence(), "there are more PCI buses than expected");
}

TEST_F(QemuFailureTest, argument_that_qemu_refuses) {
    std::string words;
    const auto machine = qemu::QemuMachine::start({.devices = {"no-such-device"}, .words = &words});
    ASSERT_FALSE(machine);
    if (machine.error().code() == ErrorCode::not_found)
        GTEST_SKIP() << "SKIPPED: QEMU is not installed";
    EXPECT_NE(words.find("no-such-device"), std::string::npos) << words;
}

TEST_F(QemuFailureTest, process_that_is_ended_behind_the_machine_s_back) {
    auto machine = qemu::QemuMachine::start({.devices = {"edu,addr=4"}});
    if (!machine && machine.error().code() == ErrorCode::not_found)
        GTEST_SKIP() << "SKIPPED: QEMU is not installed";
    ASSERT_TRUE(machine) << machine.error();
    auto function = *(*machine)->open(Bdf(0, 4, 0));
    Registers& registers = **function->bar(0);
    ASSERT_EQ(registers.read32(0), 0x010000edU);
    ::kill((*machine)->qtest().process(), SIGKILL);
    EXPECT_EQ(registers.read32(0), 0xffffffffU);
    registers.write32(4, 1);
    EXPECT_EQ(registers.read64(0x80), ~std::uint64_t{0});
    EXPECT_EQ((*machine)->health().error().code(), ErrorCode::io);
    auto never = [] { return false; };
    EXPECT_EQ((*machine)->wait_until(never, std::chrono::hours(1)), Wait::timed_out);
    auto none = [](const fault::Record&) {};
    EXPECT_FALSE((*machine)->take_faults(none));
}

TEST_F(QemuFailureTest, process_that_hangs_at_work_is_ended_by_its_number) {
    auto machine =
        qemu::QemuMachine::start({.devices = {"edu,addr=4"}, .patience = std::chrono::seconds(2)});
    if (!machine && machine.error().code() == ErrorCode::not_found)
        GTEST_SKIP() << "SKIPPED: QEMU is not installed";
    ASSERT_TRUE(machine) << machine.error();
    auto function = *(*machine)->open(Bdf(0, 4, 0));
    const pid_t process = (*machine)->qtest().process();
    ::kill(process, SIGSTOP);
    EXPECT_EQ((*function->bar(0))->read32(0), 0xffffffffU);
    EXPECT_EQ((*machine)->health().error().sentence(),
              "QEMU did not answer in time; moat killed it");
    EXPECT_EQ(::kill(process, 0), -1) << "the machine lives, its process does not";
}

/// The open files of a process, by name.
[[nodiscard]] std::set<std::string> open_files(pid_t process) {
    std::set<std::string> files;
    for (const auto& each :
         std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/fd")) {
        std::error_code gone; // the descriptor that lists the folder
        files.insert(std::filesystem::read_symlink(each.path(), gone));
    }
    return files;
}

/// A process that starts a machine, prints its QEMU's number, and waits to be killed.
[[noreturn]] void start_and_wait(int tell) {
    auto machine = qemu::QemuMachine::start({.devices = {"edu,addr=4"}});
    const pid_t number = machine ? (*machine)->qtest().process()
                         : machine.error().code() == ErrorCode::not_found ? 0
                                                                          : -1;
    (void)!::write(tell, &number, sizeof number);
    for (;;)
        ::pause();
}

TEST_F(QemuFailureTest, nothing_is_left_of_a_machine_whose_process_was_killed) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);
    ::prctl(PR_SET_CHILD_SUBREAPER, 1); // waits for QEMU's end here, in case init does not
    const std::set<std::string> inherited = open_files(::getpid()); // ctest's log among them
    const pid_t starter = ::fork();
    if (starter == 0)
        start_and_wait(ends[1]);
    pid_t number = -1;
    ASSERT_EQ(::read(ends[0], &number, sizeof number), ssize_t{sizeof number});
    if (number > 0) {
        const int process = static_cast<int>(::syscall(SYS_pidfd_open, number, 0));
        ASSERT_GE(process, 0);
        for (const std::string& file : open_files(number)) {
            const bool is_left_behind = file.starts_with("/tmp") || file.starts_with("/dev/shm");
            EXPECT_TRUE(!is_left_behind || inherited.contains(file)) << file;
        }
        ::kill(starter, SIGKILL);
        pollfd ended = {.fd = process, .events = POLLIN, .revents = 0};
        EXPECT_EQ(::poll(&ended, 1, 10'000), 1) << "QEMU outlives the process that started it";
        ::syscall(SYS_pidfd_send_signal, process, SIGKILL, nullptr, 0); // if init does
        ::close(process);
    }
    ::kill(starter, SIGKILL);
    ::waitpid(starter, nullptr, 0);
    if (number > 0)
        ::waitpid(number, nullptr, 0);
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
    ::close(ends[0]);
    ::close(ends[1]);
    EXPECT_NE(number, -1);
    if (number == 0)
        GTEST_SKIP() << "SKIPPED: QEMU is not installed";
}

} // namespace
} // namespace moat::tests
