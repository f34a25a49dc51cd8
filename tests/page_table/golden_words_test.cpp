// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Entries as the specifications draw them, assembled by hand from their tables. format_test.cpp has
// the round trips; only this file and the witnesses detect an error that encoding and decoding
// share.
#include "moat/page_table/attributes.hpp"

#include "formats.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

constexpr Attributes rwx = read_write | Attributes::execute;

template <class F, unsigned L = 0>
constexpr Word leaf(std::uint64_t physical, Attributes attributes, unsigned group_lg2 = 0) {
    return F::template leaf_word<L>(physical, F::attribute_word(attributes), group_lg2);
}

// SDM volume 3A, table 4-20 (4K page), 4-18 (2M), 4-16 (1G), 4-15 (a table).
TEST(GoldenWords, agree_with_x86_64) {
    using F = formats::X86_64<4>;
    EXPECT_EQ(leaf<F>(0x1234567000, rwx), 0x0000'0012'3456'7003U);
    EXPECT_EQ(leaf<F>(0x1234567000, read_only | Attributes::user | accessed_and_dirty),
              0x8000'0012'3456'7065U);
    EXPECT_EQ((leaf<F, 1>(0xfe000000, read_write | Attributes::uncached)), 0x8000'0000'fe00'009bU);
    EXPECT_EQ((leaf<F, 2>(0xf'ffff'c000'0000, rwx | Attributes::global | Attributes::special)),
              0x000f'ffff'c000'0383U);
    EXPECT_EQ(F::table_word<3>(0x7ffe000), 0x0000'0000'07ff'e027U);
}

// VT-d 9.8: SS-PTE, SS-PDE with a 2M page, SS-PDPE with a 1G page, and a table.
TEST(GoldenWords, agree_with_the_vtd_second_stage) {
    using F = formats::VtdSecondStage<4>;
    EXPECT_EQ(leaf<F>(0x1234567000, read_write), 0x0000'0012'3456'7003U);
    EXPECT_EQ(leaf<F>(0x1234567000, read_only | accessed_and_dirty), 0x0000'0012'3456'7001U);
    EXPECT_EQ(leaf<F>(0x1000, Attributes::write | Attributes::snoop), 0x0000'0000'0000'1802U);
    EXPECT_EQ((leaf<F, 1>(0x40200000, read_write | Attributes::special)), 0x0010'0000'4020'0083U);
    EXPECT_EQ((leaf<F, 2>(0xf'ffff'c000'0000, read_only)), 0x000f'ffff'c000'0081U);
    EXPECT_EQ(F::table_word<3>(0x7ffe000), 0x0000'0000'07ff'e003U);

    using Tracked = formats::VtdSecondStage<5, hardware>;
    EXPECT_EQ(leaf<Tracked>(0x1000, read_write | accessed_and_dirty), 0x0000'0000'0000'1303U);
    EXPECT_EQ(Tracked::table_word<4>(0x7ffe000), 0x0000'0000'07ff'e103U);
}

// AMD 48882, 2.2.3: the figures of a PTE and a PDE, and table 14 for the sizes.
TEST(GoldenWords, agree_with_amd_v1) {
    using F = formats::AmdV1<>;
    EXPECT_EQ(leaf<F>(0x1234567000, read_write), 0x6000'0012'3456'7001U);
    EXPECT_EQ(leaf<F>(0x1000, read_only | Attributes::snoop), 0x3000'0000'0000'1001U);
    EXPECT_EQ(leaf<F>(0x1000, Attributes::write), 0x4000'0000'0000'1001U);
    EXPECT_EQ((leaf<F, 1>(0x200000, read_write)), 0x6000'0000'0020'0001U);
    // 8K: bit 12 clear. 16K: bits 13:12 are 01. 64K: 0111. 1M: bits 19:12 are 0111'1111.
    EXPECT_EQ(leaf<F>(0x10000, read_write, 1), 0x6000'0000'0001'0e01U);
    EXPECT_EQ(leaf<F>(0x10000, read_write, 2), 0x6000'0000'0001'1e01U);
    EXPECT_EQ(leaf<F>(0x10000, read_write, 4), 0x6000'0000'0001'7e01U);
    EXPECT_EQ(leaf<F>(0x100000, read_write, 8), 0x6000'0000'0017'fe01U);
    // 4M: bits 21:12 are 01'1111'1111. 2^51: bits 50:12 are 0 and 38 ones.
    EXPECT_EQ((leaf<F, 1>(0x400000, read_write, 1)), 0x6000'0000'005f'fe01U);
    EXPECT_EQ((leaf<F, 4>(0x8'0000'0000'0000, read_write, 3)), 0x600b'ffff'ffff'fe01U);
    // A table of the third level, in the specification's count, in one of the fourth.
    EXPECT_EQ(F::table_word<3>(0x7ffe000), 0x6000'0000'07ff'e601U);

    using Tracked = formats::AmdV1<hardware>;
    EXPECT_EQ(leaf<Tracked>(0x1000, read_write | accessed_and_dirty), 0x6000'0000'0000'1061U);
}

// Arm ARM D8.3.1: page and block descriptors with stage 1 attributes; 4K granule.
TEST(GoldenWords, agree_with_arm_stage1) {
    using F = formats::ArmStage1<>;
    // UXN, PXN, nG, AF, inner shareable, AttrIndx 0.
    EXPECT_EQ(leaf<F>(0x1234567000, read_write), 0x0060'0012'3456'7f03U);
    EXPECT_EQ(leaf<F>(0x1234567000, read_only | Attributes::user), 0x0060'0012'3456'7fc3U);
    EXPECT_EQ(leaf<F>(0x1000, read_only | Attributes::execute | Attributes::global),
              0x0040'0000'0000'1783U);
    EXPECT_EQ(leaf<F>(0x1000, read_only | Attributes::execute | Attributes::user),
              0x0020'0000'0000'1fc3U);
    EXPECT_EQ((leaf<F, 1>(0x200000, read_write | Attributes::uncached)), 0x0060'0000'0020'0f05U);
    EXPECT_EQ((leaf<F, 2>(0x40000000, read_write | Attributes::special)), 0x0160'0000'4000'0f01U);
    EXPECT_EQ(leaf<F>(0x10000, read_write, 4), 0x0070'0000'0001'0f03U);
    EXPECT_EQ(F::table_word<3>(0x7ffe000), 0x0000'0000'07ff'e003U);
}

// Arm ARM D8.5: DBM (bit 51) makes AP[2] a dirty state.
TEST(GoldenWords, agree_with_arm_stage1_and_dirty_state) {
    using F = formats::ArmStage1<with_everything({})>;
    EXPECT_EQ(leaf<F>(0x1000, read_write), 0x0068'0000'0000'1b83U) << "writable, clean";
    EXPECT_EQ(leaf<F>(0x1000, read_write | accessed_and_dirty), 0x0068'0000'0000'1f03U);
    EXPECT_EQ(leaf<F>(0x1000, read_only), 0x0060'0000'0000'1b83U);
    EXPECT_EQ(leaf<F>(0x1000, read_only | Attributes::dirty), 0x00e0'0000'0000'1b83U);
}

// Arm ARM D8.3.1 with stage 2 attributes: MemAttr, S2AP, XN[1].
TEST(GoldenWords, agree_with_arm_stage2) {
    using F = formats::ArmStage2<>;
    EXPECT_EQ(leaf<F>(0x1234567000, read_write), 0x0040'0012'3456'77ffU);
    EXPECT_EQ(leaf<F>(0x1000, read_only | Attributes::execute), 0x0000'0000'0000'177fU);
    EXPECT_EQ(leaf<F>(0x1000, Attributes::write), 0x0040'0000'0000'17bfU);
    EXPECT_EQ((leaf<F, 1>(0x200000, read_write | Attributes::uncached)), 0x0040'0000'0020'07c5U);
    EXPECT_EQ((leaf<F, 2>(0x4'0000'0000, read_write, 4)), 0x0050'0004'0000'07fdU);

    using Tracked = formats::ArmStage2<with_everything({})>;
    EXPECT_EQ(leaf<Tracked>(0x1000, read_write), 0x0048'0000'0000'137fU) << "writable, clean";
    EXPECT_EQ(leaf<Tracked>(0x1000, read_write | accessed_and_dirty), 0x0048'0000'0000'17ffU);
}

// Arm ARM, the tables of start levels, blocks and contiguous entries of each granule.
TEST(GoldenWords, agree_with_arm_geometry) {
    using Granule4K = formats::ArmStage1<>;
    EXPECT_EQ(Granule4K::most_levels, 4U);
    EXPECT_EQ(Granule4K::leaf_groups(0), 0x11U) << "4K and 64K";
    EXPECT_EQ(Granule4K::leaf_groups(1), 0x11U) << "2M and 32M";
    EXPECT_EQ(Granule4K::leaf_groups(2), 0x11U) << "1G and 16G";
    EXPECT_EQ(Granule4K::leaf_groups(3), 0U);

    using Granule16K = formats::ArmStage1<formats::ArmConfig{.granule_lg2 = 14}>;
    EXPECT_EQ(Granule16K::most_levels, 4U);
    EXPECT_EQ(Granule16K::index_bits(3), 1U);
    EXPECT_EQ(Granule16K::leaf_groups(0), 0x81U) << "16K and 2M";
    EXPECT_EQ(Granule16K::leaf_groups(1), 0x21U) << "32M and 1G";
    EXPECT_EQ(Granule16K::leaf_groups(2), 0U);

    using Granule64K = formats::ArmStage1<formats::ArmConfig{.granule_lg2 = 16}>;
    EXPECT_EQ(Granule64K::most_levels, 3U);
    EXPECT_EQ(Granule64K::index_bits(2), 6U);
    EXPECT_EQ(Granule64K::leaf_groups(0), 0x21U) << "64K and 2M";
    EXPECT_EQ(Granule64K::leaf_groups(1), 0x21U) << "512M and 16G";
    EXPECT_EQ(Granule64K::leaf_groups(2), 0U);

    using Short = formats::ArmStage1<formats::ArmConfig{.input_bits = 32}>;
    EXPECT_EQ(Short::index_bits(2), 2U);
    EXPECT_EQ(Short::leaf_groups(2), 1U) << "four entries hold no group of sixteen";
}

// Arm ARM, "Concatenated translation tables": the fewest levels with up to 16 top tables.
TEST(GoldenWords, agree_with_concatenated_arm_stage2) {
    using formats::ArmConfig;
    using formats::ArmStage2;
    using Ipa40 = ArmStage2<ArmConfig{.input_bits = 40}>;
    EXPECT_EQ(Ipa40::most_levels, 3U);
    EXPECT_EQ(table_bytes_lg2<Ipa40>(2), 13U) << "two tables";
    using Ipa43 = ArmStage2<ArmConfig{.input_bits = 43}>;
    EXPECT_EQ(table_bytes_lg2<Ipa43>(2), 16U) << "sixteen tables";
    using Ipa44 = ArmStage2<ArmConfig{.input_bits = 44}>;
    EXPECT_EQ(Ipa44::most_levels, 4U);
    EXPECT_EQ(table_bytes_lg2<Ipa44>(3), 12U);
    using Ipa48Of16K = ArmStage2<ArmConfig{.granule_lg2 = 14}>;
    EXPECT_EQ(Ipa48Of16K::most_levels, 3U);
    EXPECT_EQ(table_bytes_lg2<Ipa48Of16K>(2), 15U) << "two tables";
}

// RISC-V, Sv39's figure of an entry; Svnapot's table of encodings; Svpbmt's.
TEST(GoldenWords, agree_with_riscv) {
    using F = formats::RiscV<>;
    EXPECT_EQ(leaf<F>(0x1234567000, read_write), 0x0000'0004'8d15'9cc7U) << "A and D are preset";
    EXPECT_EQ(leaf<F>(0x1000, read_only | Attributes::user | Attributes::global),
              0x0000'0000'0000'0473U);
    EXPECT_EQ(leaf<F>(0x1000, Attributes::execute), 0x0000'0000'0000'0449U);
    EXPECT_EQ((leaf<F, 1>(0x200000, read_write | Attributes::special)), 0x0000'0000'0008'01c7U);
    EXPECT_EQ((leaf<F, 2>(0xff'ffff'c000'0000, rwx)), 0x003f'ffff'f000'00cfU);
    EXPECT_EQ(F::table_word<2>(0x7ffe000), 0x0000'0000'01ff'f801U);

    using Extended = formats::RiscV<formats::RiscvConfig{
        .levels = 4, .svnapot = true, .svpbmt = true, .accessed_dirty = hardware}>;
    EXPECT_EQ(leaf<Extended>(0x10000, read_write, 4), 0x8000'0000'0000'6007U);
    EXPECT_EQ(leaf<Extended>(0x1000, read_write | Attributes::uncached), 0x4000'0000'0000'0407U);
}

} // namespace
} // namespace moat::tests
