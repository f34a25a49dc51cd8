// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "platform/stack.hpp"
#include "run/supervise/call_stacks.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace moat::run {
namespace {

using Frames = std::array<std::uintptr_t, 32>;

[[gnu::noinline]] void stop_in(Frames& stack, std::size_t& count) {
    count = platform::capture_stack(stack);
    (void)::raise(SIGSTOP);
}

[[gnu::noinline]] void stop_below(unsigned depth, Frames& stack, std::size_t& count) {
    if (depth == 0)
        stop_in(stack, count);
    else
        stop_below(depth - 1, stack, count);
    asm volatile("" ::: "memory"); // the calls above are no tail calls
}

/// A child process that stops in stop_in() and is traced.
class StoppedChild {
  public:
    StoppedChild() : shared_(new(map()) Shared), process_(::fork()) {
        if (process_ == 0) {
            (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
            stop_below(5, shared_->stack, shared_->count);
            ::_exit(0);
        }
        int status = 0;
        stopped_ =
            process_ > 0 && ::waitpid(process_, &status, 0) == process_ && WIFSTOPPED(status);
    }

    ~StoppedChild() {
        (void)::kill(process_, SIGKILL);
        (void)::waitpid(process_, nullptr, 0);
        (void)::munmap(shared_, sizeof *shared_);
    }

    StoppedChild(const StoppedChild&) = delete;
    StoppedChild& operator=(const StoppedChild&) = delete;

    [[nodiscard]] bool is_stopped() const { return stopped_; }

    [[nodiscard]] pid_t process() const { return process_; }

    [[nodiscard]] std::optional<std::uint64_t> number_at(std::uint64_t address) const {
        std::uint64_t number = 0;
        const iovec local = {&number, sizeof number};
        const iovec remote = {reinterpret_cast<void*>(address), sizeof number};
        if (::process_vm_readv(process_, &local, 1, &remote, 1, 0) != sizeof number)
            return std::nullopt;
        return number;
    }

    /// Of the caller of stop_in and its callers, as the child's own unwinder finds them.
    [[nodiscard]] std::span<const std::uintptr_t> callers() const {
        return std::span(shared_->stack).first(shared_->count).subspan(1);
    }

  private:
    struct Shared {
        Frames stack{};
        std::size_t count = 0;
    };

    static void* map() {
        return ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                      -1, 0);
    }

    Shared* shared_;
    pid_t process_;
    bool stopped_ = false;
};

TEST(CallStacks, finds_the_callers_that_the_programs_own_unwinder_finds) {
    const StoppedChild child;
    ASSERT_TRUE(child.is_stopped());
    const auto number_at = [&](std::uint64_t address) { return child.number_at(address); };
    CallStacks stacks(child.process());
    const StoppedThread thread(child.process());
    Frames frames{};
    const std::size_t count = stacks.take(thread, number_at, frames);
    const auto callers = child.callers();
    ASSERT_GE(callers.size(), 6U); // stop_below, six times
    EXPECT_EQ(frames[0], thread.instruction_pointer());
    const auto found = std::ranges::search(
        std::span(frames).first(count), callers.first(std::min<std::size_t>(callers.size(), 16)));
    EXPECT_FALSE(found.empty());
    EXPECT_EQ(stacks.take(thread, number_at, std::span(frames).first(2)), 2U);
}

/// How often this program's file is mapped.
[[nodiscard]] std::size_t own_mappings() {
    const std::string path = std::filesystem::read_symlink("/proc/self/exe");
    std::ifstream maps("/proc/self/maps");
    std::size_t count = 0;
    for (std::string line; std::getline(maps, line);)
        count += line.ends_with(path) ? 1 : 0;
    return count;
}

TEST(CallStacks, maps_no_file_which_the_program_may_cut) {
    const StoppedChild child;
    ASSERT_TRUE(child.is_stopped());
    const auto number_at = [&](std::uint64_t address) { return child.number_at(address); };
    const std::size_t before = own_mappings();
    ASSERT_NE(before, 0U);
    CallStacks stacks(child.process());
    Frames frames{};
    ASSERT_GT(stacks.take(StoppedThread(child.process()), number_at, frames), 6U);
    EXPECT_EQ(own_mappings(), before);
}

TEST(CallStacks, knows_one_frame_where_nothing_can_be_read) {
    const StoppedChild child;
    ASSERT_TRUE(child.is_stopped());
    const auto nothing = [](std::uint64_t) -> std::optional<std::uint64_t> { return std::nullopt; };
    const StoppedThread thread(child.process());
    Frames frames{};
    EXPECT_EQ(CallStacks(child.process()).take(thread, nothing, frames), 1U);
    EXPECT_EQ(frames[0], thread.instruction_pointer());
    constexpr pid_t no_process = 0x7fffffff;
    EXPECT_EQ(CallStacks(no_process).take(thread, nothing, frames), 1U);
    EXPECT_EQ(CallStacks(no_process).take(thread, nothing, {}), 0U);
}

} // namespace
} // namespace moat::run
