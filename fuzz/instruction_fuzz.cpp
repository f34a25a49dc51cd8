// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arbitrary bytes as an instruction that accessed a device's region: executed or refused, never a
// crash, no byte read beyond the code, at most 8 bytes an access.
#include "run/instruction/instruction.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

using namespace moat;

constexpr std::uint64_t start = 0x7000'0000'0000;

void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

/// Two bytes of input choose registers; the rest is code, in a block of just its size.
void execute(std::uint8_t where, std::uint8_t how, std::vector<std::byte> code) {
    run::Registers registers;
    for (std::size_t i = 0; i < registers.general.size(); ++i)
        registers.general[i] = start + i * (where & 7);
    registers.general[1] = how & 15; // RCX: of repetitions, too
    registers.flags = (how & 16) != 0 ? 0x400 : 0;
    registers.instruction_pointer = start - 64 + where;
    const bool fails = (how & 32) != 0;
    const auto load = [&](std::uint64_t, std::span<std::byte> into) {
        require(!into.empty() && into.size() <= 8);
        std::ranges::fill(into, std::byte{where});
        return !fails;
    };
    const auto store = [&](std::uint64_t, std::span<const std::byte> from) {
        require(!from.empty() && from.size() <= 8);
        return !fails;
    };
    const std::uint64_t before = registers.instruction_pointer;
    const std::uint64_t fault = start + (how >> 6) * std::uint64_t{7} * (where & 7);
    const auto step = emulate(registers, code, fault, {load, store});
    const std::uint64_t moved = registers.instruction_pointer - before;
    if (step) {
        require(step->length >= 1 && step->length <= 15 && step->length <= code.size());
        require(moved == step->length || moved == 0);
        require(!step->vector || *step->vector < registers.vectors.size());
    } else {
        require(moved == 0 && !step.error().sentence().empty());
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2)
        return 0;
    const auto* code = reinterpret_cast<const std::byte*>(data) + 2;
    execute(data[0], data[1], {code, code + size - 2});
    return 0;
}
