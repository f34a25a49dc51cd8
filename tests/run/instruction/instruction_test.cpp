// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What emulate does beside executing: errors, split accesses, the end of a page.
#include "run/instruction/instruction.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <gtest/gtest.h>
#include <initializer_list>
#include <vector>

namespace moat::run {

namespace {

constexpr std::uint64_t device = 0x7000'0000'0000;
constexpr std::size_t rcx = 1;
constexpr std::size_t rsi = 6;
constexpr std::size_t rdi = 7;

[[nodiscard]] std::vector<std::byte> code(std::initializer_list<unsigned> bytes) {
    std::vector<std::byte> result;
    for (const unsigned each : bytes)
        result.push_back(static_cast<std::byte>(each));
    return result;
}

struct Access {
    std::uint64_t address;
    std::size_t bytes;
    bool stores;
    bool operator==(const Access&) const = default;
};

/// An instruction on memory that keeps a list of accesses and nothing else.
struct Bench {
    Registers registers;
    std::vector<Access> accesses;
    bool works = true;

    Result<Step> run(std::initializer_list<unsigned> bytes, std::uint64_t fault = device) {
        const auto load = [&](std::uint64_t address, std::span<std::byte> into) {
            accesses.push_back({address, into.size(), false});
            std::ranges::fill(into, std::byte{0x5a});
            return works;
        };
        const auto store = [&](std::uint64_t address, std::span<const std::byte> from) {
            accesses.push_back({address, from.size(), true});
            return works;
        };
        return emulate(registers, code(bytes), fault, {load, store});
    }
};

TEST(Instruction, splits_wide_accesses_from_the_lowest_address) {
    Bench bench;
    bench.registers.general[rdi] = device;
    ASSERT_TRUE(bench.run({0xc5, 0xfe, 0x7f, 0x07})); // vmovdqu [rdi], ymm0
    EXPECT_EQ(bench.accesses, (std::vector<Access>{{device, 8, true},
                                                   {device + 8, 8, true},
                                                   {device + 16, 8, true},
                                                   {device + 24, 8, true}}));
}

TEST(Instruction, repetition_stops_at_the_end_of_the_page) {
    Bench bench;
    bench.registers.general[rdi] = device + 0xff8;
    bench.registers.general[rcx] = 10;
    ASSERT_TRUE(bench.run({0xf3, 0xab}, device + 0xff8)); // rep stosd
    EXPECT_EQ(bench.registers.general[rcx], 8U);
    EXPECT_EQ(bench.registers.general[rdi], device + 0x1000);
    EXPECT_EQ(bench.registers.instruction_pointer, 0U);
    EXPECT_EQ(bench.accesses.size(), 2U);
}

TEST(Instruction, calls_and_jumps_through_a_device_are_refused) {
    for (const unsigned way : {0x17U, 0x27U}) { // call [rdi], jmp [rdi]
        Bench bench;
        bench.registers.general[rdi] = device;
        const auto step = bench.run({0xff, way});
        ASSERT_FALSE(step);
        EXPECT_EQ(step.error().code(), ErrorCode::unsupported);
        EXPECT_NE(step.error().sentence().find("jumps"), std::string_view::npos);
        EXPECT_TRUE(bench.accesses.empty());
    }
}

TEST(Instruction, others_are_refused_without_an_access) {
    const auto refused = {std::initializer_list<unsigned>{0xdd, 0x07}, // fld qword ptr [rdi]
                          {0x0f, 0x6f, 0x07},                          // movq mm0, [rdi]
                          {0x8e, 0x1f},                                // mov ds, [rdi]
                          {0x0f, 0xaf, 0x07},                          // imul eax, [rdi]
                          {0x0f, 0x58, 0x07},                          // addps xmm0, [rdi]
                          {0x0f, 0xc7, 0x0f},                          // cmpxchg8b [rdi]
                          {0x62, 0xf1, 0xfe, 0x29, 0x6f, 0x07}};       // vmovdqu64 ymm0{k1}, [rdi]
    for (const auto& each : refused) {
        Bench bench;
        bench.registers.general[rdi] = device;
        const Registers before = bench.registers;
        const auto step = bench.run(each);
        ASSERT_FALSE(step);
        EXPECT_EQ(step.error().code(), ErrorCode::unsupported);
        EXPECT_EQ(bench.registers.general, before.general);
        EXPECT_EQ(bench.registers.instruction_pointer, 0U);
        for (const Access& access : bench.accesses)
            EXPECT_FALSE(access.stores);
    }
}

TEST(Instruction, bytes_that_are_none_are_a_mismatch) {
    Bench bench;
    EXPECT_EQ(bench.run({}).error().code(), ErrorCode::mismatch);
    EXPECT_EQ(bench.run({0x06}).error().code(), ErrorCode::mismatch);       // none in 64-bit mode
    EXPECT_EQ(bench.run({0x8b, 0x87}).error().code(), ErrorCode::mismatch); // cut off
}

TEST(Instruction, another_address_than_the_faults_is_a_mismatch) {
    Bench bench;
    bench.registers.general[rdi] = device + 4;
    EXPECT_EQ(bench.run({0x8b, 0x07}).error().code(), ErrorCode::mismatch);       // mov eax, [rdi]
    EXPECT_EQ(bench.run({0x89, 0xc7}).error().code(), ErrorCode::mismatch);       // mov edi, eax
    EXPECT_EQ(bench.run({0x0f, 0xa3, 0x07}).error().code(), ErrorCode::mismatch); // bt [rdi], eax
    EXPECT_TRUE(bench.accesses.empty());
}

TEST(Instruction, a_faulting_access_leaves_the_registers) {
    const auto instructions = {std::initializer_list<unsigned>{0x8b, 0x07}, // mov eax, [rdi]
                               {0x87, 0x07},                                // xchg [rdi], eax
                               {0x0f, 0xb1, 0x0f},                          // cmpxchg [rdi], ecx
                               {0xff, 0x37},                                // push [rdi]
                               {0x0f, 0x12, 0x07},                          // movlps xmm0, [rdi]
                               {0xa5}};                                     // movsd
    for (const auto& each : instructions) {
        Bench bench;
        bench.works = false;
        bench.registers.general[rdi] = device;
        bench.registers.general[rsi] = device;
        const Registers before = bench.registers;
        const auto step = bench.run(each);
        ASSERT_FALSE(step);
        EXPECT_EQ(step.error().code(), ErrorCode::io);
        EXPECT_EQ(bench.registers.general, before.general);
        EXPECT_EQ(bench.registers.vectors, before.vectors);
        EXPECT_EQ(bench.registers.instruction_pointer, 0U);
    }
}

TEST(Instruction, addresses_of_32_bits_wrap) {
    Bench bench;
    bench.registers.general[rdi] = 0xffff'ffff'0000'1000;
    ASSERT_TRUE(bench.run({0x67, 0x8b, 0x07}, 0x1000)); // mov eax, [edi]
    EXPECT_EQ(bench.accesses, (std::vector<Access>{{0x1000, 4, false}}));
}

TEST(Instruction, addresses_relative_to_the_next_instruction) {
    Bench bench;
    bench.registers.instruction_pointer = device - 0x100;
    const auto step = bench.run({0x8b, 0x05, 0xfa, 0, 0, 0}); // mov eax, [rip + 0xfa]
    ASSERT_TRUE(step);
    EXPECT_EQ(step->length, 6U);
    EXPECT_EQ(bench.accesses, (std::vector<Access>{{device, 4, false}}));
    EXPECT_EQ(bench.registers.instruction_pointer, device - 0x100 + 6);
}

TEST(Instruction, accumulator_forms_have_absolute_addresses) {
    Bench bench;
    ASSERT_TRUE(bench.run({0xa1, 0, 0, 0, 0, 0, 0x70, 0, 0})); // mov eax, [0x700000000000]
    EXPECT_EQ(bench.registers.general[0], 0x5a5a5a5aU);
    ASSERT_TRUE(bench.run({0xa2, 0, 0, 0, 0, 0, 0x70, 0, 0})); // mov [0x700000000000], al
    EXPECT_EQ(bench.accesses, (std::vector<Access>{{device, 4, false}, {device, 1, true}}));
}

} // namespace

} // namespace moat::run
