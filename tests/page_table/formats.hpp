// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The list of every format and configuration that the suites of this folder run for. Add a new
// format here and nowhere else. Suites of the engine use it through engine.hpp; typed suites of the
// bits as `TYPED_TEST_SUITE(Suite, AllFormats, FormatName)`.
#pragma once

#include "moat/page_table/format.hpp"
#include "moat/page_table/formats/amd_v1.hpp"
#include "moat/page_table/formats/arm_stage1.hpp"
#include "moat/page_table/formats/arm_stage2.hpp"
#include "moat/page_table/formats/riscv.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/formats/x86_64.hpp"

#include <algorithm>
#include <cstddef>
#include <gtest/gtest.h>
#include <string>
#include <utility>

namespace moat::tests {

/// A text that can be a template argument.
template <std::size_t N>
struct Label {
    constexpr Label(const char (&text)[N]) { // NOLINT(google-explicit-constructor)
        std::copy_n(text, N, characters);
    }

    char characters[N];
};

/// One row of the list: a format, its configuration, and its name for gtest.
template <Label Name, PageTableFormat F>
struct Case {
    using Format = F;
    static constexpr const char* name = Name.characters;
};

struct FormatName {
    template <class C>
    static std::string GetName(int) {
        return C::name;
    }
};

inline constexpr auto hardware = FlagUpdate::hardware;

/// FEAT_HAFDBS and FEAT_BBM level 2, as on current server processors.
constexpr formats::ArmConfig with_everything(formats::ArmConfig config) {
    config.accessed = config.dirty = hardware;
    config.size_change = LiveChange::in_place;
    return config;
}

using CpuFormats = ::testing::Types<
    Case<"x86_64_4_levels", formats::X86_64<4>>, Case<"x86_64_5_levels", formats::X86_64<5>>,
    Case<"riscv_sv39", formats::RiscV<>>,
    Case<"riscv_sv39_svnapot", formats::RiscV<formats::RiscvConfig{.svnapot = true}>>,
    Case<"riscv_sv48_everything",
         formats::RiscV<formats::RiscvConfig{
             .levels = 4, .svnapot = true, .svpbmt = true, .accessed_dirty = hardware}>>,
    Case<"riscv_sv57", formats::RiscV<formats::RiscvConfig{.levels = 5}>>>;

using IommuFormats =
    ::testing::Types<Case<"vtd_3_levels", formats::VtdSecondStage<3>>,
                     Case<"vtd_4_levels", formats::VtdSecondStage<4>>,
                     Case<"vtd_4_levels_dirty", formats::VtdSecondStage<4, hardware>>,
                     Case<"vtd_5_levels", formats::VtdSecondStage<5>>,
                     Case<"amd_v1", formats::AmdV1<>>,
                     Case<"amd_v1_dirty", formats::AmdV1<hardware>>,
                     Case<"amd_v1_fixed", formats::AmdV1<FlagUpdate::none, 4>>>;

using ArmFormats = ::testing::Types<
    Case<"arm_stage1_4k_48", formats::ArmStage1<>>,
    Case<"arm_stage1_4k_39_everything", formats::ArmStage1<with_everything({.input_bits = 39})>>,
    Case<"arm_stage1_16k_48", formats::ArmStage1<formats::ArmConfig{.granule_lg2 = 14}>>,
    Case<"arm_stage1_16k_36_everything",
         formats::ArmStage1<with_everything({.granule_lg2 = 14, .input_bits = 36})>>,
    Case<"arm_stage1_64k_48", formats::ArmStage1<formats::ArmConfig{.granule_lg2 = 16}>>,
    Case<"arm_stage1_64k_42_everything",
         formats::ArmStage1<with_everything({.granule_lg2 = 16, .input_bits = 42})>>,
    Case<"arm_stage2_4k_40", formats::ArmStage2<>>,
    Case<"arm_stage2_4k_48_everything", formats::ArmStage2<with_everything({})>>,
    Case<"arm_stage2_16k_40",
         formats::ArmStage2<formats::ArmConfig{.granule_lg2 = 14, .input_bits = 40}>>,
    Case<"arm_stage2_16k_48_everything", formats::ArmStage2<with_everything({.granule_lg2 = 14})>>,
    Case<"arm_stage2_64k_42",
         formats::ArmStage2<formats::ArmConfig{.granule_lg2 = 16, .input_bits = 42}>>>;

template <class... Lists>
struct Concatenated;

template <class... A, class... B, class... C>
struct Concatenated<::testing::Types<A...>, ::testing::Types<B...>, ::testing::Types<C...>> {
    using Types = ::testing::Types<A..., B..., C...>;
};

using AllFormats = Concatenated<CpuFormats, IommuFormats, ArmFormats>::Types;

} // namespace moat::tests
