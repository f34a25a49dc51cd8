// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "platform/stack.hpp"
#include "run/supervise/memory_map.hpp"
#include "run/supervise/unwind_table.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <random>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace moat::run {
namespace {

[[nodiscard]] FrameRegisters frame_of(const ucontext_t& context) {
    constexpr std::array<int, 17> places = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                            REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                            REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    FrameRegisters frame;
    for (std::size_t i = 0; i != places.size(); ++i)
        frame.values[i] = static_cast<std::uint64_t>(context.uc_mcontext.gregs[places[i]]);
    return frame;
}

TEST(UnwindTable, finds_the_callers_that_the_compilers_unwinder_finds) {
    ucontext_t context;
    ASSERT_EQ(getcontext(&context), 0);
    std::array<std::uintptr_t, 4> expected{};
    ASSERT_EQ(platform::capture_stack(expected), expected.size());
    FrameRegisters frame = frame_of(context);
    constexpr auto return_address = FrameRegisters::return_address;
    const auto number_at = [](std::uint64_t address) -> std::optional<std::uint64_t> {
        std::uint64_t number = 0;
        std::memcpy(&number, reinterpret_cast<const void*>(address), sizeof number);
        return number;
    };
    // The first one is within this function: the two calls of it differ.
    for (const std::uintptr_t each : std::span(expected).subspan(1)) {
        const std::uint64_t code = frame.values[return_address] - 1;
        const auto mapped = mapping_at(::getpid(), code);
        ASSERT_TRUE(mapped);
        const UnwindTable table(mapped->path);
        const auto above =
            table.step(frame, code - table.bias(mapped->start, mapped->offset), number_at);
        ASSERT_TRUE(above);
        frame = *above;
        EXPECT_EQ(frame.values[return_address], each);
    }
}

TEST(UnwindTable, survives_files_that_are_damaged) {
    std::ifstream in("/bin/true", std::ios::binary);
    const std::vector<char> whole{std::istreambuf_iterator<char>(in), {}};
    ASSERT_GT(whole.size(), 1000U);
    const std::string path =
        (std::filesystem::temp_directory_path() / ("moat-elf-" + std::to_string(::getpid())))
            .string();
    std::mt19937_64 random(1);
    const auto number_at = [&](std::uint64_t address) -> std::optional<std::uint64_t> {
        return address % 7 == 0 ? std::nullopt : std::optional(random());
    };
    unsigned steps = 0;
    for (unsigned round = 0; round != 300; ++round) {
        std::vector<char> damaged = whole;
        for (unsigned i = 0; i != round; ++i) // headers are often hit
            damaged[random() % (i % 2 == 0 ? 1000 : damaged.size())] = static_cast<char>(random());
        if (round == 0)
            damaged.resize(damaged.size() - 1);
        if (round % 3 == 1) // the headers are right
            std::copy_n(whole.begin(), 1000, damaged.begin());
        if (round % 50 == 49)
            damaged.resize(random() % damaged.size());
        std::ofstream(path, std::ios::binary)
            .write(damaged.data(), static_cast<std::streamsize>(damaged.size()));
        const UnwindTable table(path);
        (void)table.bias(random(), random() % 65'536);
        for (std::uint64_t code = 0x1000; code < 0x9000; code += 61)
            steps += table.step({}, code, number_at).has_value() ? 1 : 0;
    }
    std::filesystem::remove(path);
    EXPECT_GT(steps, 1000U) << "seed 1";
}

TEST(UnwindTable, is_empty_for_what_is_no_program) {
    const auto nothing = [](std::uint64_t) -> std::optional<std::uint64_t> { return 0; };
    for (const char* const path : {"/dev/null", "/nowhere", "/proc/self/status", "/"})
        EXPECT_FALSE(UnwindTable(path).step({}, 0x1000, nothing)) << path;
}

} // namespace
} // namespace moat::run
