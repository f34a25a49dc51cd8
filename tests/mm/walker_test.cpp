// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The visits of a walk, their order and number; and that a reading walk changes nothing.
#include "moat/mm/walker.hpp"

#include "fixture.hpp"

#include <gtest/gtest.h>
#include <string>

namespace moat::mm::tests {
namespace {

/// Records all visits, and checks that each address is visited once.
struct Notes {
    std::string text;
    std::uint64_t next = 0;
    std::uint64_t retries = 0;

    void visit(VirtualRange range, const std::string& what) {
        EXPECT_EQ(range.start().value(), next) << "every address is visited once, in order";
        next = range.last().value() + 1;
        text += (text.empty() ? "" : " ") + what + ":" + to_string(range.size());
    }

    template <unsigned L>
    Action leaf(VirtualRange range, const Leaf<Space::Types, L>&) {
        visit(range, "leaf" + std::to_string(L));
        return Action::proceed;
    }

    void hole(VirtualRange range, unsigned depth) {
        visit(range, depth == no_vma ? "nothing" : "hole" + std::to_string(depth));
    }

    void retried(VirtualRange) { ++retries; }
};

/// Requests smaller leaves, which a reading walk does not make.
struct Asker : Notes {
    template <unsigned L>
    Action leaf(VirtualRange range, const Leaf<Space::Types, L>& found) {
        Notes::leaf(range, found);
        return Action::subtree;
    }
};

/// Records the levels of entries with tables, and descends to level 2 at most.
struct TableNotes : Notes {
    std::string tables;

    template <unsigned L>
    Action table(VirtualAddress, const Entry<Space::Types, L>&) {
        tables += std::to_string(L);
        return L == 2 ? Action::proceed : Action::subtree;
    }
};

/// Always asks for another look.
struct Stubborn : Notes {
    unsigned asked = 0;

    template <unsigned L>
    Action leaf(VirtualRange, const Leaf<Space::Types, L>&) {
        ++asked;
        return Action::again;
    }
};

class WalkerTest : public ::testing::Test {
  protected:
    static constexpr std::uint64_t base = 1ULL << 41;

    void SetUp() override {
        ASSERT_TRUE(world.space.map(at(base, 3 * gib), world.bar_mapping()));
        ASSERT_TRUE(world.space.map(at(base + 4 * gib, 6 * mib), {}));
    }

    void fault(std::uint64_t address, Access access = Access::write) {
        ASSERT_TRUE(world.space.fault(VirtualAddress(address), access));
    }

    template <class Visitor>
    void walk(Visitor& visitor, VirtualRange range) {
        visitor.next = range.start().value();
        const auto walked = mm::walk(world.space, range, visitor);
        ASSERT_TRUE(walked) << to_string(walked.error());
        EXPECT_EQ(visitor.next, range.last().value() + 1);
    }

    World world;
};

using Walks = WalkerTest;

TEST_F(Walks, visit_leaves_holes_and_what_lies_between_mappings) {
    fault(base + gib);
    fault(base + 4 * gib);
    ASSERT_TRUE(world.space.zap(at(base + 4 * gib, 8 * kib)));
    Notes notes;
    walk(notes, at(base - gib, 6 * gib));
    std::string pages;
    for (unsigned i = 0; i != 510; ++i)
        pages += " leaf0:4K";
    EXPECT_EQ(notes.text, "nothing:1G hole2:1G leaf2:1G hole2:1G nothing:1G hole0:4K hole0:4K" +
                              pages + " hole1:2M hole1:2M nothing:1018M");
}

TEST_F(Walks, show_the_part_of_a_leaf_that_is_walked) {
    fault(base);
    Notes notes;
    walk(notes, at(base + 5 * kib, 3 * kib));
    EXPECT_EQ(notes.text, "leaf2:3K");
}

TEST_F(Walks, that_read_change_nothing) {
    for (std::uint64_t i = 0; i != 3; ++i)
        fault(base + i * gib);
    fault(base + 4 * gib);
    Listener listener;
    world.space.add_notifier(listener);
    const auto tables = world.memory.tables_in_use();

    Asker asks;

    walk(asks, at(base, 5 * gib));
    EXPECT_EQ(asks.text, "leaf2:1G leaf2:1G leaf2:1G nothing:1G leaf1:2M hole1:2M hole1:2M "
                         "nothing:1018M");
    EXPECT_TRUE(listener.heard.empty());
    EXPECT_EQ(world.memory.tables_in_use(), tables);
    world.space.remove_notifier(listener);
}

TEST_F(Walks, pass_over_or_end_at_a_mapping_as_the_test_says) {
    struct : Notes {
        VmaTest answer = VmaTest::skip;
        std::string calls;

        VmaTest test(const Vma<Sync>& vma) {
            return vma.mapping.kind == VmaKind::device ? answer : VmaTest::walk;
        }

        void before(const Vma<Sync>&) { calls += "before "; }

        void after(const Vma<Sync>&) { calls += "after "; }
    } notes;

    notes.next = base + 3 * gib;
    const VirtualRange range = at(base, 4 * gib + 2 * mib);
    EXPECT_EQ(mm::walk(world.space, range, notes), WalkEnd::complete);
    EXPECT_EQ(notes.text, "nothing:1G hole3:2M");
    EXPECT_EQ(notes.calls, "before after ");
    notes.answer = VmaTest::stop;
    EXPECT_EQ(mm::walk(world.space, range, notes), WalkEnd::stopped);
}

TEST_F(Walks, go_into_tables_or_pass_over_them) {
    fault(base + 4 * gib);

    TableNotes notes;

    EXPECT_EQ(mm::walk(world.space, at(base + 4 * gib, 6 * mib), notes), WalkEnd::complete);
    EXPECT_EQ(notes.tables, "32");
    EXPECT_EQ(notes.text, "");
}

TEST_F(Walks, without_mappings_see_the_tables_alone) {
    fault(base + gib);
    Notes notes;
    notes.next = base - gib;
    Walker<const Space, Notes> walker(world.space, notes);
    EXPECT_EQ(walker.run_without_vmas(at(base - gib, 4 * gib)), WalkEnd::complete);
    EXPECT_EQ(notes.text, "hole3:1G hole2:1G leaf2:1G hole2:1G");
}

using ChangingWalks = WalkerTest;

/// Requests pages.
struct Splitter : Notes {
    template <unsigned L>
    Action leaf(VirtualRange range, const Leaf<Space::Types, L>& found) {
        if (L != 0)
            return Action::subtree;
        return Notes::leaf(range, found);
    }

    template <unsigned L>
    void kept(VirtualRange range, const Leaf<Space::Types, L>& found) {
        Notes::leaf(range, found);
    }
};

/// The number of 4 KiB pages in a walk's records.
std::size_t pages_in(const std::string& text) {
    std::size_t count = 0;
    for (std::size_t at = text.find("leaf0:4K"); at != std::string::npos;
         at = text.find("leaf0:4K", at + 1))
        ++count;
    return count;
}

TEST_F(ChangingWalks, split_what_their_visitor_wants_smaller) {
    fault(base + 4 * gib + 2 * mib);
    Splitter splitter;
    splitter.next = base + 4 * gib;
    EXPECT_EQ(walk_and_change(world.space, at(base + 4 * gib, 6 * mib), splitter),
              WalkEnd::complete);
    EXPECT_EQ(splitter.next, base + 4 * gib + 6 * mib);
    EXPECT_EQ(pages_in(splitter.text), 512U);
    EXPECT_EQ(splitter.retries, 1U);
}

TEST_F(ChangingWalks, keep_a_device_leaf_or_unmap_it_but_never_split_it) {
    fault(base);
    fault(base + gib);
    Splitter keeper;
    keeper.next = base;
    EXPECT_EQ(walk_and_change(world.space, at(base, 3 * gib), keeper), WalkEnd::complete);
    EXPECT_EQ(world.leaf_lg2(base), 30U);
    EXPECT_EQ(keeper.text, "leaf2:1G leaf2:1G hole2:1G");
    Splitter taker;
    taker.next = base;
    EXPECT_EQ(walk_and_change(world.space, at(base, 3 * gib), taker, {.device = DeviceLeaf::unmap}),
              WalkEnd::complete);
    EXPECT_EQ(world.leaf_lg2(base), 0U);
    EXPECT_EQ(taker.text, "hole2:1G hole2:1G hole2:1G");
}

TEST_F(ChangingWalks, look_again_boundedly_and_then_under_the_lock) {
    fault(base);
    fault(base + 4 * gib);

    Stubborn stubborn;

    EXPECT_EQ(walk_and_change(world.space, at(base, gib), stubborn), WalkEnd::complete);
    EXPECT_EQ(stubborn.asked, 1U + 3U + 1U);
    EXPECT_EQ(stubborn.retries, 4U);

    // Another thread restores the leaf whenever it is split.

    struct : Splitter {
        World* world = nullptr;

        void retried(VirtualRange range) {
            ++retries;
            ASSERT_TRUE(world->space.fault(range.start(), Access::read));
        }
    } chased;

    chased.world = &world;
    chased.next = base;
    EXPECT_EQ(walk_and_change(world.space, at(base, gib), chased, {.device = DeviceLeaf::unmap}),
              WalkEnd::complete);
    EXPECT_EQ(chased.text, "hole2:1G");
    EXPECT_EQ(chased.retries, 4U);
}

TEST_F(ChangingWalks, install_what_is_missing) {
    fault(base + gib);

    struct : Notes {
        std::optional<Access> install(VirtualRange range) {
            return range.start().value() < base + 2 * gib ? std::optional(Access::read)
                                                          : std::nullopt;
        }
    } installer;

    installer.next = base;
    EXPECT_EQ(walk_and_change(world.space, at(base, 3 * gib), installer), WalkEnd::complete);
    EXPECT_EQ(installer.text, "leaf2:1G leaf2:1G hole2:1G");
    world.space.revoke(world.bar);
    Notes notes;
    installer.next = base;
    installer.text.clear();
    EXPECT_EQ(walk_and_change(world.space, at(base, gib), installer), WalkEnd::complete);
    EXPECT_EQ(installer.text, "hole2:1G");
}

TEST_F(ChangingWalks, that_fail_leave_no_lock_held) {
    Sizes sizes;
    sizes.tables = ByteCount(3 * page);
    World small(sizes);
    ASSERT_TRUE(small.space.map(at(base, 2 * mib), {}));
    ASSERT_TRUE(small.space.fault(VirtualAddress(base), Access::write));
    Splitter splitter;
    splitter.next = base;
    const auto walked = walk_and_change(small.space, at(base, 2 * mib), splitter);
    ASSERT_FALSE(walked);
    EXPECT_EQ(walked.error().code(), ErrorCode::no_memory);
    EXPECT_TRUE(small.space.unmap(at(base, 2 * mib)));
}

} // namespace
} // namespace moat::mm::tests
