// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "watch/kernel_symbols.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <string>

namespace moat::watch {
namespace {

std::string name_of(const KernelSymbols& symbols, std::uintptr_t address) {
    std::string name;
    const auto keep = [&](const StackFrame& frame) {
        EXPECT_EQ(frame.address, address);
        name = frame.function;
    };
    symbols(address, keep);
    return name;
}

TEST(KernelSymbols, names_functions_of_the_kernel_and_of_modules) {
    const KernelSymbols symbols("ffffffffb612bb00 t iommu_dma_alloc_iova\n"
                                "ffffffffb6000000 T _stext\n"
                                "ffffffffb7000000 D not_code\n"
                                "ffffffffc0601000 t edu_map_one\t[edu_test]\n");
    EXPECT_EQ(name_of(symbols, 0xffffffffb612bb05), "iommu_dma_alloc_iova+0x5");
    EXPECT_EQ(name_of(symbols, 0xffffffffb6000000), "_stext+0x0");
    EXPECT_EQ(name_of(symbols, 0xffffffffc06010bb), "edu_map_one+0xbb [edu_test]");
}

TEST(KernelSymbols, gives_the_address_alone_where_no_function_is) {
    const KernelSymbols symbols("ffffffffb612bb00 t iommu_dma_alloc_iova\n");
    EXPECT_EQ(name_of(symbols, 0xffffffffb612baff), "");
    EXPECT_EQ(name_of(symbols, 0xffffffffb612bb00 + (1U << 20)), "");
}

TEST(KernelSymbols, omits_functions_that_write_trace_events) {
    const KernelSymbols symbols("ffffffffb612bb00 t do_trace_event_raw_event_dma_map_sg\n");
    const auto fail = [](const StackFrame& frame) { FAIL() << frame.function; };
    symbols(0xffffffffb612bb10, fail);
}

TEST(KernelSymbols, is_empty_without_root) {
    EXPECT_TRUE(KernelSymbols("0000000000000000 t iommu_dma_alloc_iova\n").empty());
}

TEST(KernelSymbols, skips_what_it_cannot_read) {
    const KernelSymbols symbols("\n\nxyz t a\nffffffffb6000000\nffffffffb6000000 t\n"
                                "ffffffffffffffffffff t b\nffffffffb6000000 t c\t[");
    EXPECT_EQ(name_of(symbols, 0xffffffffb6000001), "c+0x1");
}

} // namespace
} // namespace moat::watch
