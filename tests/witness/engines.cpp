// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine, compiled for the formats of witnesses alone.
#include "formats.hpp"
#include "page_table/engine_of.hpp"

std::vector<moat::tests::FormatUnderTest> moat::tests::witness_formats() {
    return engines_of(WitnessFormats());
}
