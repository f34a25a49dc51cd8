// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The formats that witnesses walk and no suite of tests/page_table needs, and the search for any
// format by its type. engines.cpp compiles their engines.
#pragma once

#include "page_table/engine.hpp"
#include "page_table/formats.hpp"

#include <concepts>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <vector>

namespace moat::tests {

using WitnessFormats = ::testing::Types<
    Case<"riscv_sv48", formats::RiscV<formats::RiscvConfig{.levels = 4}>>,
    Case<"riscv_sv48_flags",
         formats::RiscV<formats::RiscvConfig{.levels = 4, .accessed_dirty = hardware}>>,
    Case<"arm_stage1_4k_39", formats::ArmStage1<formats::ArmConfig{.input_bits = 39}>>,
    Case<"arm_stage1_16k_47",
         formats::ArmStage1<formats::ArmConfig{.granule_lg2 = 14, .input_bits = 47}>>,
    Case<"arm_stage1_64k_42",
         formats::ArmStage1<formats::ArmConfig{.granule_lg2 = 16, .input_bits = 42}>>,
    Case<"arm_stage2_4k_43", formats::ArmStage2<formats::ArmConfig{.input_bits = 43}>>,
    Case<"arm_stage2_4k_44", formats::ArmStage2<formats::ArmConfig{.input_bits = 44}>>>;

std::vector<FormatUnderTest> witness_formats();

/// The name of F in a list; empty if it lacks F.
template <PageTableFormat F, class... Cases>
std::string name_in(::testing::Types<Cases...>) {
    std::string name;
    ((std::same_as<F, typename Cases::Format> ? void(name = Cases::name) : void()), ...);
    return name;
}

template <PageTableFormat F>
FormatUnderTest format_of_type() {
    const std::string name = name_in<F>(AllFormats()) + name_in<F>(WitnessFormats());
    for (const auto& list : {all_formats(), witness_formats()})
        for (const FormatUnderTest& each : list)
            if (each.facts.name == name)
                return each;
    throw std::logic_error("neither list of formats has what a witness walks");
}

} // namespace moat::tests
