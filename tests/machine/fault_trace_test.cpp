// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Faults from the kernel's tracepoint, and from it and the log together, on files of the test's
// own.
#include "moat/fault/report.hpp"

#include "machine/vfio_host/host_faults.hpp"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <vector>

namespace moat::tests {
namespace {

namespace fs = std::filesystem;
using namespace machine::vfio_host;

class FaultTraceTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::array<int, 2> ends{};
        ASSERT_EQ(::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC), 0);
        kernels_trace_ = platform::FileDescriptor(ends[1]);
        trace_.emplace(platform::FileDescriptor(ends[0]));
        std::array<int, 2> log{};
        ASSERT_EQ(
            ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, log.data()), 0);
        kernels_log_ = platform::FileDescriptor(log[0]);
        log_.emplace(platform::FileDescriptor(log[1]), "no interrupts");
    }

    void emit(std::string_view text) const {
        ASSERT_EQ(::write(kernels_trace_.get(), text.data(), text.size()),
                  static_cast<ssize_t>(text.size()));
    }

    void emit_fault(std::string_view address) const {
        emit("     irq/41-AMD-Vi-99      [001] d.h1.    12.500000: io_page_fault: IOMMU:vfio-pci "
             "0000:02:00.0 iova=0x");
        emit(address);
        emit(" flags=0x0001\n");
    }

    void say(std::string_view text) const {
        const std::string record = "3,813,12500100,-;" + std::string(text) + "\n";
        ASSERT_EQ(::send(kernels_log_.get(), record.data(), record.size(), 0),
                  static_cast<ssize_t>(record.size()));
    }

    /// The faults of `source`, each on a line.
    template <class Source, class... Patience>
    std::string take(Source& source, Patience... patience) {
        std::string text;
        const auto keep = [&](const fault::LogEvent& decoded) {
            text += to_string(decoded.record) + "\n";
        };
        const auto lost = source.take(keep, patience...);
        EXPECT_TRUE(lost) << lost.error();
        return text + (*lost == 0 ? "" : std::to_string(*lost) + " lost\n");
    }

    std::string take_trace() { return take(*trace_); }

    std::string take_both() { return take(*both_, std::chrono::milliseconds(0)); }

    void follow_both() { both_.emplace(std::move(*log_), std::move(*trace_)); }

    void follow_log() { both_.emplace(std::move(*log_), std::nullopt); }

    void end_trace() { kernels_trace_.reset(); }

  private:
    platform::FileDescriptor kernels_trace_;
    platform::FileDescriptor kernels_log_;
    std::optional<FaultTrace> trace_;
    std::optional<FaultLog> log_;
    std::optional<HostFaults> both_;
};

constexpr const char* by_trace = "0000:02:00.0: write at 0x1001000: unknown (code 0x1)\n";
constexpr const char* amd_line = "vfio-pci 0000:02:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT "
                                 "domain=0x0012 address=0x1001000 flags=0x0020]";

TEST_F(FaultTraceTest, an_event_is_a_fault_with_its_time) {
    EXPECT_EQ(take_trace(), "");
    emit("           <...>-99      [001] d.h1.    12.400000: map: IOMMU: iova=0x1000 - 0x2000 "
         "paddr=0x1000 size=4096\n");
    emit_fault("0000000001001000");
    EXPECT_EQ(take_trace(), by_trace);
    EXPECT_EQ(take_trace(), "");
}

TEST_F(FaultTraceTest, a_line_may_come_in_pieces) {
    emit("irq/41-AMD-Vi-99 [001] d.h1. 12.500000: io_page_fault: IOMMU:vfio-pci 0000:02:");
    EXPECT_EQ(take_trace(), "");
    emit("00.0 iova=0x0000000001001000 flags=0x0001\nirq/41-AMD");
    EXPECT_EQ(take_trace(), by_trace);
    emit("-Vi-99 [001] d.h1. 12.500000: io_page_fault: IOMMU:vfio-pci 0000:02:00.0 "
         "iova=0x0000000001001000 flags=0x0001\n");
    EXPECT_EQ(take_trace(), by_trace);
}

TEST_F(FaultTraceTest, what_the_kernel_had_no_room_for_is_lost) {
    emit("CPU:1 [LOST 23 EVENTS]\n");
    emit_fault("0000000001001000");
    EXPECT_EQ(take_trace(), std::string(by_trace) + "23 lost\n");
}

TEST_F(FaultTraceTest, nonsense_is_no_fault_and_no_end) {
    emit(std::string(3 * 4096, 'x'));
    EXPECT_EQ(take_trace(), "");
    emit("\n");
    emit_fault("0000000001001000");
    EXPECT_EQ(take_trace(), by_trace);
    end_trace();
    EXPECT_EQ(take_trace(), "");
}

TEST_F(FaultTraceTest, a_driver_that_emits_nothing_is_heard_by_its_log) {
    follow_both();
    say(amd_line);
    EXPECT_EQ(take_both(),
              "0000:02:00.0: access at 0x1001000: not-present (code 0x20), domain 0x12\n");
    say("amd_iommu_report_page_fault: 8 callbacks suppressed");
    EXPECT_EQ(take_both(), "unknown device: access: events-lost, 8 suppressed before\n8 lost\n");
}

TEST_F(FaultTraceTest, a_fault_by_both_is_one_and_the_logs_limit_loses_none) {
    follow_both();
    emit_fault("0000000001001000");
    emit_fault("0000000001001000");
    say(amd_line);
    EXPECT_EQ(take_both(), std::string(by_trace) + by_trace);
    say("amd_iommu_report_page_fault: 8 callbacks suppressed");
    say(amd_line); // of a fault that was reported before
    EXPECT_EQ(take_both(), "");
}

TEST_F(FaultTraceTest, without_a_tracepoint_the_log_is_all) {
    follow_log();
    say(amd_line);
    EXPECT_NE(take_both(), "");
}

/// The kernel creates the files of a new instance; here it is a folder that stays empty.
class TracefsTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = fs::temp_directory_path() / "moat-tracefs-XXXXXX";
        root_ = ::mkdtemp(name.data());
        fs::create_directories(root_ / "instances");
    }

    void TearDown() override { fs::remove_all(root_); }

    [[nodiscard]] std::vector<std::string> instances() const {
        std::vector<std::string> names;
        for (const auto& each : fs::directory_iterator(root_ / "instances"))
            names.push_back(each.path().filename().string());
        std::ranges::sort(names);
        return names;
    }

    fs::path root_;
};

TEST_F(TracefsTest, a_kernel_without_the_tracepoint_is_told) {
    EXPECT_EQ(FaultTrace::open(root_.string()).error().code(), ErrorCode::not_found);
    EXPECT_EQ(FaultTrace::open((root_ / "none").string()).error().code(), ErrorCode::not_found);
    EXPECT_TRUE(instances().empty());
}

TEST_F(TracefsTest, an_instance_that_cannot_be_read_is_taken_away) {
    fs::create_directories(root_ / "events/iommu/io_page_fault");
    EXPECT_EQ(FaultTrace::open(root_.string()).error().code(), ErrorCode::io);
    EXPECT_TRUE(instances().empty());
}

TEST_F(TracefsTest, what_a_killed_program_left_is_taken_away_and_nothing_else) {
    fs::create_directories(root_ / "events/iommu/io_page_fault");
    constexpr int no_process = 0x7ffffff0; // above the kernel's largest number
    const std::string dead = "moat-" + std::to_string(no_process) + "-0";
    const std::string living = "moat-" + std::to_string(::getppid()) + "-0";
    for (const std::string& each : {dead, living, std::string("another"), std::string("moat-x")})
        fs::create_directory(root_ / "instances" / each);
    EXPECT_FALSE(FaultTrace::open(root_.string()));
    EXPECT_EQ(instances(), (std::vector<std::string>{"another", living, "moat-x"}));
}

} // namespace
} // namespace moat::tests
