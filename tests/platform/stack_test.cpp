// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stacks of functions with known names, inlined or not, and a report with a real one.
#include "moat/fault/report.hpp"

#include "platform/stack.hpp"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <regex>
#include <string>
#include <thread>
#include <vector>

namespace moat::platform {

/// Not in an unnamed namespace, so that they have symbols without debug information as well.
struct Taken {
    std::array<std::uintptr_t, 16> frames = {};
    std::size_t count = 0;
};

[[gnu::always_inline]] inline void inlined_into_inner(Taken& taken) {
    taken.count = capture_stack(taken.frames);
    asm volatile("" : : : "memory");
}

[[gnu::noinline]] void inner_function(Taken& taken) {
    inlined_into_inner(taken);
}

[[gnu::noinline]] void outer_function(Taken& taken) {
    inner_function(taken);
    asm volatile("" : : : "memory");
}

namespace {

struct Line {
    std::string function;
    std::string file;
    unsigned line;
};

[[nodiscard]] std::vector<Line> lines_of(const Taken& taken) {
    std::vector<Line> lines;
    const auto add = [&](const StackFrame& frame) {
        lines.push_back({std::string(frame.function), std::string(frame.file), frame.line});
    };
    for (std::size_t index = 0; index != taken.count; ++index)
        symbolise(taken.frames[index], add);
    return lines;
}

[[nodiscard]] std::ptrdiff_t find(const std::vector<Line>& lines, const std::string& function) {
    for (std::size_t index = 0; index != lines.size(); ++index)
        if (lines[index].function.find(function) != std::string::npos)
            return static_cast<std::ptrdiff_t>(index);
    return -1;
}

TEST(Stack, names_the_callers_in_order) {
    Taken taken;
    outer_function(taken);
    const auto lines = lines_of(taken);
    const auto inner = find(lines, "moat::platform::inner_function");
    const auto outer = find(lines, "moat::platform::outer_function");
    EXPECT_GE(inner, 0);
    EXPECT_GT(outer, inner);
    EXPECT_LE(inner, 1) << "nothing but what was inlined lies above the caller";
}

TEST(Stack, names_files_lines_and_inlined_functions) {
    Taken taken;
    outer_function(taken);
    const auto lines = lines_of(taken);
    ASSERT_FALSE(lines.empty());
    EXPECT_NE(lines[0].function.find("inlined_into_inner"), std::string::npos) << lines[0].function;
    EXPECT_NE(lines[0].file.find("stack_test.cpp"), std::string::npos);
    EXPECT_GT(lines[0].line, 0U);
    EXPECT_EQ(find(lines, "inner_function"), 1);
}

TEST(Stack, is_put_into_words_by_any_thread) {
    Taken taken;
    outer_function(taken);
    std::array<std::size_t, 4> found{};
    {
        std::vector<std::jthread> threads;
        for (std::size_t& each : found)
            threads.emplace_back([&] { each = lines_of(taken).size(); });
    }
    EXPECT_GT(found[0], 0U);
    EXPECT_TRUE(std::ranges::all_of(found, [&](std::size_t each) { return each == found[0]; }));
}

TEST(Stack, skips_what_it_is_told) {
    Taken all;
    outer_function(all);
    std::array<std::uintptr_t, 16> frames{};
    const std::size_t count = capture_stack(frames, 1);
    EXPECT_LT(count, all.count);
    std::array<std::uintptr_t, 2> few{};
    EXPECT_EQ(capture_stack(few), 2U);
}

TEST(Stack, an_address_of_nothing_gives_the_address_alone) {
    unsigned frames = 0;
    const auto check = [&](const StackFrame& frame) {
        ++frames;
        EXPECT_EQ(frame.address, 0x10U);
        EXPECT_TRUE(frame.function.empty());
    };
    symbolise(0x10, check);
    EXPECT_EQ(frames, 1U);
}

TEST(Stack, a_report_shows_it) {
    Taken taken;
    outer_function(taken);
    fault::Diagnosis diagnosis;
    diagnosis.kind = fault::Kind::out_of_bounds_right;
    diagnosis.record =
        fault::exact_record(fault::Source::pci(0, 1, 0), fault::Access::write,
                            IovaRange(Iova(0x11000), ByteCount(4)), fault::Reason::not_present);
    diagnosis.mapping =
        fault::Mapping{.range = IovaRange(Iova(0x10000), ByteCount(0x1000)),
                       .mapped = {.stack = fault::StackView(taken.frames).first(taken.count)}};
    const auto words = [](std::uintptr_t address, fault::FrameSink sink) {
        symbolise(address, sink);
    };
    fault::ReportOptions options;
    options.symbolise = words;
    const std::string text = std::regex_replace(fault::text_report(diagnosis, options),
                                                std::regex("#([0-9]+) 0x[0-9a-f]+"), "#$1 ADDRESS");
    EXPECT_NE(text.find("mapped here:\n    #0 ADDRESS in "), std::string::npos) << text;
    EXPECT_NE(text.find("outer_function"), std::string::npos) << text;
}

} // namespace

} // namespace moat::platform
