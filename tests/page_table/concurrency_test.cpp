// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Real threads on one tree: writers of adjacent ranges, readers everywhere. Run under
// ThreadSanitizer; the explorer runs the same engine under chosen schedules.
#include "moat/page_table/edit.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include "formats.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <gtest/gtest.h>
#include <latch>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace {

using namespace moat;
using namespace moat::tests;

template <class C>
class Concurrency : public ::testing::Test {};

/// One of each behaviour: plain leaves, identical groups, groups changed in place.
using Formats = ::testing::Types<
    Case<"x86_64", formats::X86_64<4>>, Case<"amd_v1", formats::AmdV1<FlagUpdate::none, 4>>,
    Case<"arm_in_place", formats::ArmStage1<with_everything({})>>,
    Case<"riscv_svnapot", formats::RiscV<formats::RiscvConfig{.levels = 4, .svnapot = true}>>>;
TYPED_TEST_SUITE(Concurrency, Formats, FormatName);

struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
};

/// Every writer maps an address to itself plus one of two offsets, so that a reader can check any
/// result, whenever it was read.
constexpr std::uint64_t offsets[] = {0, std::uint64_t{1} << 40};

template <class F>
struct Shared {
    using Types = Tree<F, RealSync, TablePool<RealSync>>;
    using Input = typename F::Input;
    static constexpr std::size_t tables = 1024;

    std::unique_ptr<std::byte[], Free> bytes{
        static_cast<std::byte*>(std::aligned_alloc(4096, tables * 4096))};
    std::vector<TableHeader> headers{tables};
    TablePool<RealSync> pool{
        {bytes.get(), tables * 4096}, PhysicalAddress(1ULL << 44), headers, 12};
    PageTable<Types> table = *PageTable<Types>::create(pool, F::most_levels);
    std::atomic<unsigned> writers{0};
    std::latch start{4};
};

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t block = 512 * page;

/// Owns [base, base + size): maps, splits, protects, folds, unmaps inside it.
template <class F>
void write(Shared<F>& shared, std::uint64_t base, std::uint64_t size, std::uint64_t seed) {
    using Input = typename F::Input;
    std::mt19937_64 random(seed);
    auto ignore = [](const InvalidationRequest<Input>&) {};
    shared.start.arrive_and_wait();
    for (unsigned step = 0; step != 50'000; ++step) {
        std::uint64_t length = page << (random() % 10);
        length = length > size ? size : length;
        const std::uint64_t start = base + (random() % (size / length)) * length;
        auto edit = shared.table.edit(ignore);
        switch (random() % 6) {
        case 0:
        case 1:
        case 2:
            (void)edit
                .map(Input(start), ByteCount(length),
                     PhysicalAddress(start + offsets[random() % 2]), read_write)
                .has_value();
            break;
        case 3:
            ASSERT_TRUE(
                edit.unmap(Input(start), ByteCount(length), {.partial = PartialLeaf::split}));
            break;
        case 4:
            ASSERT_TRUE(edit.protect(Input(start), ByteCount(length), Attributes::read,
                                     {.partial = PartialLeaf::split}));
            break;
        default:
            (void)edit.fold(Input(start), ByteCount(length)).has_value();
        }
        edit.finish();
    }
    auto edit = shared.table.edit(ignore);
    ASSERT_TRUE(edit.unmap(Input(base), ByteCount(size)));
    edit.finish();
    shared.writers.fetch_sub(1);
}

struct Judge {
    std::uint64_t leaves = 0;
    std::uint64_t wrong = 0;

    template <class Input, class Leaf>
    void leaf(Input start, const Leaf& leaf) {
        ++leaves;
        const std::uint64_t offset = leaf.physical().value() - start.value();
        wrong += offset == offsets[0] || offset == offsets[1] ? 0 : 1;
    }
};

template <class F>
void read(Shared<F>& shared, std::uint64_t base, std::uint64_t size, std::uint64_t seed) {
    using Input = typename F::Input;
    std::mt19937_64 random(seed);
    shared.start.arrive_and_wait();
    while (shared.writers.load() != 0) {
        const auto reader = shared.table.reader();
        for (unsigned i = 0; i != 64; ++i) {
            const std::uint64_t address = base + random() % size;
            const auto found = reader.translate(Input(address));
            if (!found)
                continue;
            const std::uint64_t offset = found->physical().value() - address;
            ASSERT_TRUE(offset == offsets[0] || offset == offsets[1])
                << std::hex << address << " -> " << found->physical().value();
        }
        Judge judge;
        ASSERT_EQ(reader.walk(Input(base), ByteCount(size), judge), WalkEnd::complete);
        ASSERT_EQ(judge.wrong, 0U) << "of " << judge.leaves;
    }
}

TYPED_TEST(Concurrency, writers_side_by_side_and_readers_everywhere) {
    using F = typename TypeParam::Format;
    Shared<F> shared;
    // The middle of a block is the border between two writers, which share tables of every level.
    const std::uint64_t base = 7 * block;
    const std::uint64_t border = base + 2 * block + block / 2;
    const std::uint64_t end = base + 5 * block;
    shared.writers = 2;
    std::array threads = {
        std::thread([&] { write<F>(shared, base, border - base, 1); }),
        std::thread([&] { write<F>(shared, border, end - border, 2); }),
        std::thread([&] { read<F>(shared, base, end - base, 3); }),
        std::thread([&] { read<F>(shared, base, end - base, 4); }),
    };
    for (std::thread& thread : threads)
        thread.join();
    RealSync::barrier();
    Judge judge;
    ASSERT_TRUE(shared.table.reader().walk(typename F::Input(base), ByteCount(end - base), judge));
    EXPECT_EQ(judge.leaves, 0U);
}

} // namespace
