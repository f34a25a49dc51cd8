// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What `moat run` costs a program: ioctls that map and unmap beside the bare system call, accesses
// to a BAR beside a signal, and QEMU's reads of a disk beside those of no disk at all. The program
// executes itself again with libmoat-run.so preloaded.
#include "moat/core/check.hpp"

#include "harness.hpp"
#include "platform/file_descriptor.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <linux/vfio.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;

constexpr std::size_t page = 4096;

/// An edu device of a program that uses type1, and a page to map.
class Program {
  public:
    Program() {
        MOAT_CHECK(ioctl(group_.get(), VFIO_GROUP_SET_CONTAINER, &container_number_) == 0 &&
                       ioctl(container_.get(), VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0,
                   "a container");
        device_ =
            platform::FileDescriptor(ioctl(group_.get(), VFIO_GROUP_GET_DEVICE_FD, "0000:05:00.0"));
        bar_ = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, device_.get(), 0);
        memory_ = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        MOAT_CHECK(bar_ != MAP_FAILED && memory_ != MAP_FAILED, "a BAR and memory");
    }

    /// A register of edu that keeps what is written and does nothing else.
    [[nodiscard]] void* plain_register() const { return static_cast<std::byte*>(bar_) + 4; }

    void map_and_unmap() const {
        vfio_iommu_type1_dma_map map = {.argsz = sizeof map,
                                        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
                                        .vaddr = reinterpret_cast<std::uintptr_t>(memory_),
                                        .iova = 0x10000,
                                        .size = page};
        vfio_iommu_type1_dma_unmap unmap = {
            .argsz = sizeof unmap, .flags = 0, .iova = 0x10000, .size = page};
        MOAT_CHECK(ioctl(container_.get(), VFIO_IOMMU_MAP_DMA, &map) == 0 &&
                       ioctl(container_.get(), VFIO_IOMMU_UNMAP_DMA, &unmap) == 0,
                   "a map and an unmap");
    }

  private:
    platform::FileDescriptor container_{::open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC)};
    platform::FileDescriptor group_{::open("/dev/vfio/1280", O_RDWR | O_CLOEXEC)};
    int container_number_ = container_.get();
    platform::FileDescriptor device_;
    void* bar_ = nullptr;
    void* memory_ = nullptr;
};

// One instruction each, of two bytes.
void load(const void* address) {
    std::uint32_t value = 0;
    asm volatile("movl (%1), %0" : "=a"(value) : "D"(address) : "memory");
}

void store(void* address) {
    asm volatile("movl %0, (%1)" : : "a"(7), "D"(address) : "memory");
}

constexpr greg_t access_bytes = 2;

void skip(int /*signal*/, siginfo_t* /*info*/, void* context) {
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += access_bytes;
}

/// SIGSEGV's action as the system call has it: the library does not see it change.
class Action {
  public:
    static Action current() {
        Action action;
        call(nullptr, &action);
        return action;
    }

    void install() const { call(this, nullptr); }

    [[nodiscard]] Action with_handler(void (*handler)(int, siginfo_t*, void*)) const {
        Action action = *this;
        action.handler_ = handler;
        return action;
    }

  private:
    static void call(const Action* action, Action* old) {
        MOAT_CHECK(syscall(SYS_rt_sigaction, SIGSEGV, action, old, sizeof(std::uint64_t)) == 0,
                   "an action");
    }

    void (*handler_)(int, siginfo_t*, void*) = nullptr;
    // The kernel's: passed on as they were.
    [[maybe_unused]] std::uint64_t flags_ = 0;
    [[maybe_unused]] void (*restorer_)() = nullptr;
    [[maybe_unused]] std::uint64_t mask_ = 0;
};

template <class Operation>
auto repeat(Operation operation) {
    return [operation](std::uint64_t count) {
        for (; count != 0; --count)
            operation();
    };
}

void measure_calls(Suite& suite, const Program& program) {
    constexpr int remembered = 65'536;
    for (int i = 0; i != remembered; ++i)
        program.map_and_unmap(); // until moat's memory of past mappings is full
    const platform::FileDescriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    suite.compare({.name = "a pair of ioctls, map and unmap",
                   .subject = {.run = repeat([&] { program.map_and_unmap(); })},
                   .against = "the system call of a null ioctl",
                   .other = {.run = repeat([&] { syscall(SYS_ioctl, null.get(), 0, 0); })},
                   .goal = 2});
}

void measure_accesses(Suite& suite, const Program& program) {
    void* const reg = program.plain_register();
    void* const nothing = ::mmap(nullptr, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const Action serving = Action::current();
    const Action skipping = serving.with_handler(skip);
    const auto serve = [&] { serving.install(); };
    suite.compare(
        {.name = "a load from a BAR",
         .subject = {.run = repeat([=] { load(reg); }), .prepare = serve},
         .against = "a signal that skips the instruction",
         .other = {.run = repeat([=] { load(nothing); }), .prepare = [&] { skipping.install(); }},
         .goal = 1.5});
    suite.compare(
        {.name = "a store to a BAR",
         .subject = {.run = repeat([=] { store(reg); }), .prepare = serve},
         .against = "a signal that skips the instruction",
         .other = {.run = repeat([=] { store(nothing); }), .prepare = [&] { skipping.install(); }},
         .goal = 1.5});
    serve();
}

/// Thousands of scattered reads a second, as qemu-img says; 0 if it fails.
double read_rate(const std::string& before, const std::string& disk, int depth, int reads) {
    const std::string command = "env -u LD_PRELOAD -u MOAT_RUN " + before +
                                " qemu-img bench -s 4096 -S 40988672 -d " + std::to_string(depth) +
                                " -c " + std::to_string(reads) + ' ' + disk + " 2>/dev/null";
    std::FILE* const output = ::popen(command.c_str(), "r");
    double seconds = 0;
    std::array<char, 256> line{};
    while (std::fgets(line.data(), line.size(), output) != nullptr)
        (void)std::sscanf(line.data(), "Run completed in %lf", &seconds);
    ::pclose(output);
    return seconds == 0 ? 0 : reads / seconds / 1000;
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::ranges::nth_element(values, middle);
    return *middle;
}

void measure_qemu(Suite& suite, int depth) {
    const std::string name = "4 KiB reads by qemu-img, " + std::to_string(depth) + " at once";
    if (!suite.wants(name))
        return;
    constexpr int repetitions = 9;
    std::vector<double> subject;
    std::vector<double> other;
    for (int i = 0; i != repetitions; ++i) {
        subject.push_back(read_rate(MOAT_COMMAND " run --quiet --", "-f raw nvme://0000:05:00.0/1",
                                    depth, 20'000));
        other.push_back(read_rate("", "--image-opts driver=null-co,size=64M", depth, 200'000));
    }
    if (median(subject) == 0 || median(other) == 0)
        return (void)std::fprintf(stderr, "SKIPPED %s: no qemu-img\n", name.c_str());
    suite.report({.name = name,
                  .value = median(subject),
                  .unit = "10^3/s",
                  .against = "QEMU's null-co, without VFIO",
                  .against_value = median(other),
                  .better = Better::higher});
}

} // namespace

int main(int argc, char** argv) {
    if (::getenv("MOAT_RUN") == nullptr) {
        ::setenv("MOAT_RUN", "device edu@0000:05:00.0\n", 1);
        ::setenv("LD_PRELOAD", MOAT_PRELOAD, 1);
        ::execv("/proc/self/exe", argv);
        return 1;
    }
    Suite suite("run", argc, argv);
    if (suite.only_counts())
        return suite.finish();
    const Program program;
    measure_calls(suite, program);
    measure_accesses(suite, program);
    for (const int depth : {1, 64})
        measure_qemu(suite, depth);
    return suite.finish();
}
