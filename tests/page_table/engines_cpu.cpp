// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine, compiled for one family of formats.
#include "engine_of.hpp"

std::vector<moat::tests::FormatUnderTest> moat::tests::cpu_formats() {
    return engines_of(CpuFormats());
}
