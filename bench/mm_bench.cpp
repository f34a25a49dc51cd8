// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The address space: what reports cost a page beside the kernel's own, whether faults on disjoint
// ranges hinder each other, and how much memory tables take.
#include "moat/iommu/generations.hpp"
#include "moat/iommu/table_domain.hpp"
#include "moat/mm/dma_map.hpp"
#include "moat/mm/readers/pagemap_scan.hpp"
#include "moat/mm/readers/proc.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/page_table/owned_tables.hpp"
#include "moat/sync/real.hpp"

#include "harness.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace moat;
using namespace moat::literals;
using namespace moat::mm;
using bench::keep;

using Memory = PhysicalMemory<HeapStore<RealSync>>;
using Space = AddressSpace<formats::X86_64<4>, RealSync, Memory>;

constexpr std::uint64_t page = std::uint64_t{1} << frame_lg2;
constexpr VirtualAddress base(std::uint64_t{1} << 41);
constexpr PhysicalAddress bar_base(std::uint64_t{1} << 42);

struct World {
    explicit World(ByteCount ram, ByteCount tables)
        : nodes{ram}, memory(HeapStore<RealSync>(tables), {.nodes = nodes}),
          bar(**memory.add_region({bar_base, 128_GiB}, RegionKind::registers)),
          space(memory, *Space::Tables::create(memory)) {}

    void map(ByteCount size, const Mapping<RealSync>& mapping) {
        if (!space.map({base, size}, mapping))
            std::abort();
    }

    void populate(ByteCount size) {
        if (!space.populate({base, size}, Access::write))
            std::abort();
    }

    std::array<ByteCount, 1> nodes;
    Memory memory;
    DeviceRegion<RealSync>& bar;
    Space space;
};

/// As much memory of the kernel's, in pages of 4 KiB, all written to.
class KernelMemory {
  public:
    explicit KernelMemory(std::uint64_t bytes)
        : bytes_(bytes),
          memory_(static_cast<std::byte*>(
              mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
        if (memory_ == MAP_FAILED)
            std::abort();
        madvise(memory_, bytes, MADV_NOHUGEPAGE);
        for (std::uint64_t at = 0; at < bytes; at += page)
            memory_[at] = std::byte{1};
    }

    ~KernelMemory() { munmap(memory_, bytes_); }

    KernelMemory(const KernelMemory&) = delete;
    KernelMemory& operator=(const KernelMemory&) = delete;

    [[nodiscard]] std::byte* data() const { return memory_; }

  private:
    std::uint64_t bytes_;
    std::byte* memory_;
};

/// Reads all of a file of /proc. Return: how many bytes.
std::uint64_t read_file(const char* path) {
    std::FILE* const file = std::fopen(path, "r");
    if (file == nullptr)
        return 0;
    std::array<char, 4096> buffer{};
    std::uint64_t bytes = 0;
    while (const std::size_t read = std::fread(buffer.data(), 1, buffer.size(), file))
        bytes += read;
    std::fclose(file);
    return bytes;
}

using Report = std::function<void()>;

double nanoseconds(const Report& report) {
    const auto begin = std::chrono::steady_clock::now();
    report();
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin)
        .count();
}

/// Both sides report on all of their memory in turn; medians, a page.
void compare_reports(bench::Suite& suite, const char* name, std::uint64_t pages, const Report& ours,
                     const char* against, const Report& theirs, double goal) {
    constexpr std::size_t repetitions = 15;
    std::array<double, repetitions> subject{};
    std::array<double, repetitions> other{};
    ours();
    theirs();
    for (std::size_t i = 0; i != repetitions; ++i) {
        subject[i] = nanoseconds(ours);
        other[i] = nanoseconds(theirs);
    }
    std::ranges::sort(subject);
    std::ranges::sort(other);
    const auto count = static_cast<double>(pages);
    suite.report({.name = name,
                  .value = subject[repetitions / 2] / count,
                  .unit = "ns",
                  .against = against,
                  .against_value = other[repetitions / 2] / count,
                  .goal = goal});
}

/// The kernel resolves each page from its struct page with a reference or a map count to look at,
/// through locked tables, and has the file system to write through; it does not hold more of them.
void report_rows(bench::Suite& suite) {
    const char* const numa_row = "numa_maps over 4 GiB of 4K pages, a page";
    const char* const scan_row = "pagemap scan without a match, an entry";
    if (suite.only_counts() || (!suite.wants(numa_row) && !suite.wants(scan_row)))
        return;
    constexpr ByteCount size = 4_GiB;
    constexpr std::uint64_t pages = size.value() / page;
    World world(4_GiB, 16_MiB);
    world.map(size, {.largest_leaf_lg2 = frame_lg2});
    world.populate(size);
    const KernelMemory kernel(size.value());
    if (read_file("/proc/self/numa_maps") != 0)
        compare_reports(
            suite, numa_row, pages,
            [&] { numa_maps(world.space, [](std::string_view line) { keep(line); }); },
            "/proc/self/numa_maps", [] { keep(read_file("/proc/self/numa_maps")); }, 0.2);
    std::vector<unsigned char> resident(pages);
    compare_reports(
        suite, scan_row, pages,
        [&] {
            const auto done = pagemap_scan(world.space, {base, size}, {.all = Pages::special},
                                           [](VirtualRange range, Pages) { keep(range); });
            keep(done.has_value());
        },
        "mincore()", [&] { keep(mincore(kernel.data(), size.value(), resident.data())); }, 1.0);
}

void thread_rows(bench::Suite& suite) {
    const char* const name = "fault + zap of a 4K page, two threads on disjoint ranges";
    if (!suite.wants(name) || suite.only_counts())
        return;
    World world(64_MiB, 1_MiB);
    world.map(64_MiB, {.largest_leaf_lg2 = frame_lg2});
    // The tables are there: pages come and go in them.
    for (const std::uint64_t thread : {0, 1})
        if (!world.space.fault(VirtualAddress(base.value() + thread * 2 * 1024 * 1024),
                               Access::write))
            std::abort();
    suite.compare_threads({.name = name,
                           .subject =
                               [&](unsigned thread, std::uint64_t count) {
                                   const std::uint64_t block =
                                       base.value() + std::uint64_t{thread} * 2 * 1024 * 1024;
                                   for (std::uint64_t i = 0; i != count; ++i) {
                                       const VirtualAddress at(block + page + i % 64 * page);
                                       keep(world.space.fault(at, Access::write).has_value());
                                       keep(world.space.zap({at, ByteCount(page)}).has_value());
                                   }
                               },
                           .against = "an arithmetic loop",
                           .other =
                               [](unsigned thread, std::uint64_t count) {
                                   std::uint64_t value = thread + 1;
                                   for (; count != 0; --count)
                                       for (unsigned i = 0; i != 64; ++i)
                                           value =
                                               value * 6364136223846793005 + 1442695040888963407;
                                   keep(value);
                               },
                           .goal = 1.3});
}

void single_rows(bench::Suite& suite) {
    World world(64_MiB, 1_MiB);
    world.map(64_MiB, {.largest_leaf_lg2 = frame_lg2});
    world.populate(ByteCount(page));
    suite.compare({.name = "fault + zap of a 4K page",
                   .subject = {.run = [&](std::uint64_t count) {
                       for (std::uint64_t i = 0; i != count; ++i) {
                           const VirtualAddress at(base.value() + page + i % 64 * page);
                           keep(world.space.fault(at, Access::write).has_value());
                           keep(world.space.zap({at, ByteCount(page)}).has_value());
                       }
                   }}});
}

void table_rows(bench::Suite& suite) {
    World world(64_MiB, 1_MiB);
    world.map(128_GiB, {.kind = VmaKind::device, .region = &world.bar});
    world.populate(128_GiB);
    suite.report({.name = "tables of a 128 GiB BAR, 1 GiB leaves",
                  .value = static_cast<double>(world.memory.tables_in_use() * page),
                  .unit = "bytes",
                  .goal = 12 * 1024});
}

using DomainTree = Tree<formats::VtdSecondStage<4>, RealSync, TablePool<RealSync>>;
using Domain = iommu::TableDomain<DomainTree, iommu::Generations<RealSync>>;

/// What a map of a BAR that is faulted in cannot do without: 128 entries compared and stored.
std::uint64_t checked_stores(std::array<std::uint64_t, 128>& entries, std::uint64_t value) {
    std::uint64_t found = 0;
    for (std::uint64_t& each : entries) {
        found += each == value ? 1 : 0;
        std::atomic_ref(each).store(value + (&each - entries.data()), std::memory_order_release);
    }
    return found;
}

void dma_rows(bench::Suite& suite) {
    World world(64_MiB, 1_MiB);
    world.map(128_GiB, {.kind = VmaKind::device, .region = &world.bar});
    world.populate(128_GiB);
    const auto tables = OwnedTables<RealSync>::create(64).value();
    Domain domain(*Domain::Table::create(tables->pool()));
    mm::DmaMap<Space, Domain> container(world.space, domain);
    const auto map = [&] {
        const auto mapped = container.map_dma(Iova(0), base, 128_GiB, read_write);
        if (!mapped)
            std::abort();
        return mapped->steps;
    };
    const auto unmap = [&] {
        if (!container.unmap_dma(Iova(0), 128_GiB))
            std::abort();
    };
    suite.report({.name = "map_dma of a 128 GiB BAR, steps a leaf of 1 GiB",
                  .value = static_cast<double>(map()) / 128,
                  .unit = "steps",
                  .goal = 2});
    std::array<std::uint64_t, 128> entries{};
    const bench::Side subject{
        .run = [&](std::uint64_t) { keep(map()); }, .prepare = unmap, .most = 1};
    const bench::Side other{.run = [&](std::uint64_t count) {
        for (; count != 0; --count)
            keep(checked_stores(entries, count));
    }};
    suite.compare({.name = "map_dma of a 128 GiB BAR, faulted in before",
                   .subject = subject,
                   .against = "128 checked stores",
                   .other = other});
}

} // namespace

int main(int argc, char** argv) {
    bench::Suite suite("address_space", argc, argv);
    report_rows(suite);
    thread_rows(suite);
    single_rows(suite);
    table_rows(suite);
    dma_rows(suite);
    return suite.finish();
}
