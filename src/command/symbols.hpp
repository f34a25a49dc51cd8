// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Names of the functions at an address of this program, to print stacks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moat::tools {

/// "walk at lab/scenarios/pud_slot.hpp:119" of every function that is inlined there, the
/// innermost first; the address in hexadecimal without symbols. Reads the program's symbols
/// at the first call. Not thread-safe.
[[nodiscard]] std::vector<std::string> symbolise(std::uintptr_t return_address);

} // namespace moat::tools
