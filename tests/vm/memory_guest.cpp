// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kernel's memory for a domain: its release and its limits; and the leaves of a large BAR.
// cost_guest.cpp measures the cost.
#include "guest.hpp"

#include <array>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <iostream>
#include <linux/capability.h>
#include <random>
#include <sstream>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace moat::tests {
namespace {

/// The number behind `name` in a file of lines of names and numbers; 0 if the name is missing.
std::uint64_t number_of(const char* file, std::string_view name) {
    std::ifstream in(file);
    std::string line;
    while (std::getline(in, line)) {
        std::istringstream words(line);
        std::string first;
        std::uint64_t number = 0;
        if (words >> first >> number && first == name)
            return number;
    }
    return 0;
}

/// The memory held for the device, in KiB: type1 counts it as locked, iommufd as pinned.
std::uint64_t held() {
    return number_of("/proc/self/status", "VmLck:") + number_of("/proc/self/status", "VmPin:");
}

class MemoryTest : public GuestTest {
  protected:
    [[nodiscard]] std::uint32_t left() const { return domain->mappings_left()->value_or(0); }
};

TEST_F(MemoryTest, what_was_mapped_comes_back) {
    open_function(edu);
    make_space();
    const auto memory = memory_of(64);
    const std::uint32_t left_before = left();
    const std::uint64_t held_before = held();
    EXPECT_EQ(left_before != 0, domain->capabilities().most_mappings.has_value());

    struct Living {
        Iova iova;
        ByteCount size;
    };

    std::vector<Living> living;
    std::mt19937 random(8);
    const auto end_one = [&](std::size_t which) {
        ASSERT_TRUE(
            space->unmap(living[which].iova, living[which].size, dma::Direction::bidirectional));
        living[which] = living.back();
        living.pop_back();
    };
    for (unsigned i = 0; i != 100'000; ++i) {
        const std::uint64_t first = random() % (60 * page);
        const auto bytes = memory.bytes().subspan(first, 1 + random() % (2 * page));
        const auto iova = space->map(dma::Memory::own(bytes), dma::Direction::bidirectional);
        ASSERT_TRUE(iova) << iova.error() << " at " << i;
        living.push_back({*iova, ByteCount(bytes.size())});
        if (living.size() == 32)
            end_one(random() % living.size());
        if (i == 50'000) {
            EXPECT_GT(held(), held_before);
        }
    }
    while (!living.empty())
        end_one(0);
    EXPECT_EQ(left(), left_before);
    EXPECT_EQ(held(), held_before);
}

TEST_F(MemoryTest, an_address_that_is_taken_and_a_part_of_a_mapping_are_errors) {
    open_function(edu);
    const auto memory = memory_of(4);
    const auto map = [&](std::uint64_t iova, ByteCount size) {
        return domain->map(Iova(iova), size, memory.physical(), read_write);
    };
    ASSERT_TRUE(map(0x100000, 16_KiB));
    EXPECT_EQ(map(0x101000, 4_KiB).error().code(), ErrorCode::overlap);
    EXPECT_EQ(map(0x200800, 4_KiB).error().code(), ErrorCode::unaligned);
    EXPECT_EQ(map(0xfee00000, 4_KiB).error().code(), ErrorCode::overlap) << "interrupt messages";
    EXPECT_EQ(map(std::uint64_t{1} << 62, 4_KiB).error().code(), ErrorCode::out_of_range);
    EXPECT_FALSE(domain->unmap(Iova(0x101000), 4_KiB));
    EXPECT_TRUE(domain->unmap(Iova(0x100000), 16_KiB));
    EXPECT_EQ(domain->unmap(Iova(0x100000), 16_KiB).has_value(),
              domain->capabilities().unmaps_holes);
    const auto nowhere = domain->map(Iova(0x100000), 4_KiB, PhysicalAddress(4096), read_write);
    ASSERT_FALSE(nowhere);
    EXPECT_EQ(nowhere.error().code(), ErrorCode::unsupported) << nowhere.error();
    EXPECT_TRUE(map(0x100000, 16_KiB)) << "what failed left nothing behind";
    EXPECT_TRUE(domain->unmap(Iova(0x100000), 16_KiB));
}

TEST_F(MemoryTest, as_many_mappings_as_the_kernel_allows) {
    constexpr const char* parameter = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    if (expected_backend() == Backend::iommufd) {
        open_function(edu);
        EXPECT_EQ(domain->capabilities().most_mappings, std::nullopt);
        return;
    }
    const std::string before = content(parameter);
    std::ofstream(parameter) << "100\n";
    domain = std::move(*machine->create_kernel_domain());
    open_function(edu); // the container takes the limit when it gets its IOMMU
    std::ofstream(parameter) << before;
    EXPECT_EQ(domain->capabilities().most_mappings, 100U);
    const auto memory = memory_of(1);
    const auto map = [&](unsigned i) {
        return domain->map(Iova(0x100000 + 2 * page * i), 4_KiB, memory.physical(), read_write);
    };
    for (unsigned i = 0; i != 100; ++i)
        ASSERT_TRUE(map(i));
    EXPECT_EQ(left(), 0U);
    const auto one_more = map(100);
    ASSERT_FALSE(one_more);
    EXPECT_EQ(one_more.error().code(), ErrorCode::limit);
    EXPECT_NE(to_string(one_more.error()).find("dma_entry_limit"), std::string::npos);
    EXPECT_TRUE(domain->unmap(Iova(0x100000), ByteCount(200 * page)));
    EXPECT_EQ(left(), 100U);
}

/// Root may pin without limit unless it drops that capability.
class WithoutLockRight {
  public:
    WithoutLockRight() {
        ::syscall(SYS_capget, &head_, before_.data());
        auto now = before_;
        now[0].effective &= ~(1U << CAP_IPC_LOCK);
        ::syscall(SYS_capset, &head_, now.data());
        ::getrlimit(RLIMIT_MEMLOCK, &limit_);
        const rlimit small{64 << 10, limit_.rlim_max};
        ::setrlimit(RLIMIT_MEMLOCK, &small);
    }

    WithoutLockRight(const WithoutLockRight&) = delete;
    WithoutLockRight& operator=(const WithoutLockRight&) = delete;

    ~WithoutLockRight() {
        ::setrlimit(RLIMIT_MEMLOCK, &limit_);
        ::syscall(SYS_capset, &head_, before_.data());
    }

  private:
    __user_cap_header_struct head_{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> before_{};
    rlimit limit_{};
};

TEST_F(MemoryTest, as_much_memory_as_may_be_locked) {
    open_function(edu);
    const auto memory = memory_of(32);
    const std::uint64_t before = held();
    const auto mapped = [&] {
        const WithoutLockRight without;
        return domain->map(Iova(0x100000), memory.size(), memory.physical(), read_write);
    }();
    ASSERT_FALSE(mapped);
    EXPECT_EQ(mapped.error().code(), ErrorCode::limit) << mapped.error();
    EXPECT_NE(to_string(mapped.error()).find("RLIMIT_MEMLOCK"), std::string::npos);
    EXPECT_EQ(held(), before);
    EXPECT_TRUE(domain->map(Iova(0x100000), memory.size(), memory.physical(), read_write));
    EXPECT_TRUE(domain->unmap(Iova(0x100000), memory.size()));
    EXPECT_EQ(held(), before);
}

TEST_F(MemoryTest, a_function_is_given_back_when_that_is_asked) {
    using namespace machine::vfio_host;
    EXPECT_TRUE(unbind_from_vfio(large_bar));
    EXPECT_EQ(find_function(large_bar)->driver, "");
    const auto attached = machine->attach(large_bar, *domain);
    ASSERT_FALSE(attached);
    EXPECT_EQ(attached.error().code(), ErrorCode::not_found) << attached.error();
    EXPECT_TRUE(bind_to_vfio(large_bar));
    EXPECT_EQ(find_function(large_bar)->driver, vfio_driver);
    open_function(large_bar);
}

TEST_F(MemoryTest, functions_are_attached_then_opened_and_closed_then_detached) {
    EXPECT_EQ(machine->open(edu).error().code(), ErrorCode::refused);
    open_function(edu);
    EXPECT_EQ(machine->open(edu).error().code(), ErrorCode::busy);
    EXPECT_EQ(machine->attach(edu, *domain).error().code(), ErrorCode::busy);
    EXPECT_EQ(machine->detach(edu).error().code(), ErrorCode::refused);
    EXPECT_EQ(function().reset().error().code(), ErrorCode::unsupported) << "edu has no FLR";
    open_function(nvme);
    EXPECT_TRUE(function(1).reset());
    const auto second = VfioMachine::open();
    ASSERT_TRUE(second) << second.error();
    const auto other = *(*second)->create_domain();
    EXPECT_EQ((*second)->attach(edu, *other).error().code(), ErrorCode::busy);
}

/// A process that is killed during a map leaves nothing behind for the next one.
class KilledTest : public MemoryTest {
  protected:
    void SetUp() override {
        for (const machine::Bdf each : {edu, nvme, large_bar, memory_bar})
            ASSERT_TRUE(machine::vfio_host::bind_to_vfio(each));
    }

    /// Never returns.
    [[noreturn]] void map_for_ever(int told) {
        open_machine();
        open_function(edu);
        const auto memory = memory_of(16);
        for (std::uint64_t i = 0;; i = (i + 1) % 1000) {
            const Iova at(0x100000 + i * 32 * page);
            if (!domain->map(at, memory.size(), memory.physical(), read_write) && i != 0)
                ::_exit(1);
            if (i == 500 && ::write(told, "x", 1) != 1)
                ::_exit(1);
            if (i == 999)
                for (std::uint64_t undone = 0; undone != 1000; ++undone)
                    (void)domain->unmap(Iova(0x100000 + undone * 32 * page), memory.size());
        }
    }
};

TEST_F(KilledTest, the_next_one_starts_clean) {
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0)
        map_for_ever(pipe[1]);
    ::close(pipe[1]);
    char word = 0;
    EXPECT_EQ(::read(pipe[0], &word, 1), 1) << "the child maps";
    ::close(pipe[0]);
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
    open_machine();
    EXPECT_EQ(traces(), 1) << "what the child had the kernel trace is gone";
    open_function(edu);
    const auto memory = memory_of(16);
    EXPECT_EQ(left(), domain->capabilities().most_mappings.value_or(0));
    EXPECT_TRUE(domain->map(Iova(0x100000), memory.size(), memory.physical(), read_write));
    EXPECT_TRUE(domain->unmap(Iova(0x100000), memory.size()));
}

/// A reader of numa_maps splits every leaf of 1 GiB that it meets, and the kernel counts them.
TEST_F(MemoryTest, a_large_bar_is_mapped_by_the_largest_leaves) {
    open_function(large_bar);
    const auto bars = function().info().bars;
    const auto found = std::ranges::max_element(
        bars, {}, [](const machine::Bar& bar) { return bar.size.value(); });
    ASSERT_EQ(found->size, 4_GiB);
    const auto bar = machine->bar_memory(large_bar, static_cast<unsigned>(found - bars.begin()));
    ASSERT_TRUE(bar) << bar.error();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bar->data()) % (1_GiB).value(), 0U);
    rusage before{};
    ::getrusage(RUSAGE_SELF, &before);
    for (std::uint64_t at = 0; at != bar->size(); at += (1_GiB).value() / 4)
        (void)*reinterpret_cast<const volatile std::uint32_t*>(bar->data() + at);
    rusage after{};
    ::getrusage(RUSAGE_SELF, &after);
    EXPECT_LE(after.ru_minflt - before.ru_minflt, 4) << "16 places, and a fault for each GiB";
    const std::uint64_t splits = number_of("/proc/vmstat", "thp_split_pud");
    EXPECT_FALSE(content("/proc/self/numa_maps").empty());
    EXPECT_EQ(number_of("/proc/vmstat", "thp_split_pud") - splits, 4U);
}

} // namespace
} // namespace moat::tests
