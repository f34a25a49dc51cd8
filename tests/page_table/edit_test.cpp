// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The contract of an Edit: its invalidations and their time, when it frees tables, and a dropped
// edit. These use one format; other suites test the operations for all.
#include "moat/page_table/edit.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <vector>

namespace {

using namespace moat;
using namespace moat::literals;
using X86 = formats::X86_64<4>;
using Types = Tree<X86, RealSync, TablePool<RealSync>>;
using Request = InvalidationRequest<VirtualAddress>;

struct EditFree {
    void operator()(std::byte* bytes) const { std::free(bytes); }
};

class EditTest : public ::testing::Test {
  protected:
    static constexpr std::size_t tables = 64;

    void map(std::uint64_t start, ByteCount size) {
        auto edit = table.edit(invalidate);
        ASSERT_TRUE(edit.map(VirtualAddress(start), size, PhysicalAddress(start), read_write));
        edit.finish();
    }

    std::unique_ptr<std::byte[], EditFree> bytes{
        static_cast<std::byte*>(std::aligned_alloc(4096, tables * 4096))};
    std::vector<TableHeader> headers{tables};
    TablePool<RealSync> pool{{bytes.get(), tables * 4096}, PhysicalAddress(0x10000), headers, 12};
    PageTable<Types> table = *PageTable<Types>::create(pool);

    std::vector<Request> requests;
    std::function<void(const Request&)> invalidate = [this](const Request& request) {
        requests.push_back(request);
    };
};

using EditDeathTest = EditTest;

TEST_F(EditTest, a_map_into_nothing_needs_no_invalidation) {
    map(0, 1_MiB);
    EXPECT_TRUE(requests.empty());
}

TEST_F(EditTest, finish_invalidates_what_was_unmapped_once) {
    map(0x10000, 64_KiB);
    auto edit = table.edit(invalidate);
    ASSERT_TRUE(edit.unmap(VirtualAddress(0x11000), 8_KiB));
    ASSERT_TRUE(edit.unmap(VirtualAddress(0x13000), 4_KiB));
    ASSERT_TRUE(edit.unmap(VirtualAddress(0x10000), 4_KiB));
    EXPECT_TRUE(requests.empty());
    edit.finish();
    ASSERT_EQ(requests.size(), 1U);
    EXPECT_EQ(requests[0].start, VirtualAddress(0x10000));
    EXPECT_EQ(requests[0].last, VirtualAddress(0x13fff));
    EXPECT_EQ(requests[0].cached, CachedEntries::leaves);
    edit.finish();
    EXPECT_EQ(requests.size(), 1U) << "nothing is owed any more";
}

TEST_F(EditTest, far_ranges_are_never_invalidated_as_one) {
    map(0, 4_KiB);
    map(1ULL << 40, 4_KiB);
    auto edit = table.edit(invalidate);
    ASSERT_TRUE(edit.unmap(VirtualAddress(0), 4_KiB));
    ASSERT_TRUE(edit.unmap(VirtualAddress(1ULL << 40), 4_KiB));
    ASSERT_EQ(requests.size(), 1U);
    EXPECT_EQ(requests[0].last, VirtualAddress(0xfff));
    edit.finish();
    ASSERT_EQ(requests.size(), 2U);
    EXPECT_EQ(requests[1].start, VirtualAddress(1ULL << 40));
}

TEST_F(EditTest, a_removed_table_outlives_the_invalidation_and_every_reader) {
    const std::uint64_t before = pool.units_in_use();
    map(0, 2_MiB - 4_KiB);
    const std::uint64_t with_tables = pool.units_in_use();
    std::optional<Reader<Types>> reader(std::in_place, table);
    auto edit = table.edit(invalidate);
    ASSERT_TRUE(edit.unmap(VirtualAddress(0), 1_GiB));
    EXPECT_EQ(pool.units_in_use(), with_tables);
    edit.finish();
    ASSERT_EQ(requests.size(), 1U);
    EXPECT_EQ(requests[0].cached, CachedEntries::leaves_and_tables);
    EXPECT_EQ(requests[0].start, VirtualAddress(0));
    EXPECT_EQ(requests[0].last, VirtualAddress((1ULL << 30) - 1));
    EXPECT_EQ(pool.units_in_use(), with_tables) << "a reader may be inside";
    reader.reset();
    RealSync::barrier();
    EXPECT_EQ(pool.units_in_use(), before + 1) << "the table that the range covers in part stays";
}

TEST_F(EditTest, an_invalidation_comes_before_the_table_can_be_reused) {
    map(0, 4_KiB);
    std::uint64_t in_use_then = 0;
    invalidate = [&](const Request&) { in_use_then = pool.units_in_use(); };
    const std::uint64_t in_use = pool.units_in_use();
    auto edit = table.edit(invalidate);
    ASSERT_TRUE(edit.unmap(VirtualAddress(0), 2_MiB));
    edit.finish();
    EXPECT_EQ(in_use_then, in_use);
    RealSync::barrier();
    EXPECT_EQ(pool.units_in_use(), in_use - 1);
}

TEST_F(EditTest, frees_at_once_after_an_invalidation_that_waited_for_readers_and_only_then) {
    const auto map_then_remove = [&](auto& invalidating) {
        map(0, 4_KiB);
        auto edit = table.edit(invalidating);
        ASSERT_TRUE(edit.unmap(VirtualAddress(0), 2_MiB));
        edit.finish();
    };
    map_then_remove(invalidate);
    RealSync::barrier();
    const std::uint64_t without = pool.units_in_use();
    std::optional<Reader<Types>> reader;

    struct BeginsReading {
        PageTable<Types>& table;
        std::optional<Reader<Types>>& reader;

        ~BeginsReading() { reader.emplace(table); }
    };

    auto waits = [&](const Request&) {
        const BeginsReading after_the_grace_period{table, reader};
        return GracePeriod<RealSync>();
    };
    map_then_remove(waits);
    EXPECT_EQ(pool.units_in_use(), without) << "the reader began after the table was unlinked";
    auto does_not = [](const Request&) {};
    map_then_remove(does_not);
    EXPECT_EQ(pool.units_in_use(), without + 1) << "a reader may be inside";
    reader.reset();
    RealSync::barrier();
    EXPECT_EQ(pool.units_in_use(), without);
}

TEST_F(EditTest, a_failed_operation_leaves_the_edit_usable) {
    auto edit = table.edit(invalidate);
    EXPECT_FALSE(edit.map(VirtualAddress(1), 4_KiB, PhysicalAddress(0), read_write));
    EXPECT_TRUE(edit.map(VirtualAddress(0), 4_KiB, PhysicalAddress(0), read_write));
    edit.finish();
    EXPECT_TRUE(table.reader().translate(VirtualAddress(0)));
}

TEST_F(EditTest, a_moved_tree_goes_on) {
    map(0, 4_KiB);
    PageTable<Types> moved = std::move(table);
    EXPECT_EQ(moved.reader().translate(VirtualAddress(5))->physical(), PhysicalAddress(5));
}

TEST_F(EditDeathTest, an_edit_that_is_dropped_before_finish_is_a_bug) {
    map(0, 4_KiB);
    EXPECT_DEATH(
        {
            auto edit = table.edit(invalidate);
            (void)edit.unmap(VirtualAddress(0), 4_KiB).has_value();
        },
        "an edit was dropped before finish");
}

TEST_F(EditDeathTest, a_table_that_is_never_given_back_is_found) {
    EXPECT_DEATH(
        {
            std::vector<TableHeader> own(4);
            TablePool<RealSync> leaky({bytes.get(), 4 * 4096}, PhysicalAddress(0), own, 12);
            (void)leaky.allocate(12).has_value();
        },
        "every table was given back");
}

TEST_F(EditTest, no_such_number_of_levels_is_an_error) {
    const auto made = PageTable<Types>::create(pool, 5);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code(), ErrorCode::unsupported);
}

} // namespace
