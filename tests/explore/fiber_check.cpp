// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stack switches as the explorer needs them, checked without any library, so that it runs on every
// processor that a compiler and an emulator are there for. tests/explore/fiber_test.sh builds it
// with src/explore/fiber.cpp.
#include "moat/explore/fiber.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

using moat::explore::moat_explore_switch;
using moat::explore::StackPointer;

constexpr std::size_t stack_bytes = 65536;
alignas(64) std::byte stacks[3][stack_bytes];
StackPointer scheduler = nullptr;
StackPointer fibers[3] = {};
int running = 0;
std::uint64_t trail = 0; ///< what happened, a digit each

void expect(bool condition, const char* what) {
    if (condition)
        return;
    std::fprintf(stderr, "fiber_check: %s\n", what);
    std::exit(1);
}

void pause_fiber() {
    moat_explore_switch(&fibers[running], scheduler);
}

void resume(int fiber) {
    running = fiber;
    moat_explore_switch(&scheduler, fibers[fiber]);
}

/// As many values as need all registers that a callee saves, integer and floating point, and some
/// on the stack; every one is different in every fiber.
[[gnu::noinline]] void count_in_registers(int self) {
    std::uint64_t sum[14];
    double product[10];
    for (int i = 0; i != 14; ++i)
        sum[i] = static_cast<std::uint64_t>(self * 100 + i);
    for (int i = 0; i != 10; ++i)
        product[i] = self + i / 16.0;
    for (int round = 0; round != 20; ++round) {
        pause_fiber();
        for (std::uint64_t& each : sum)
            each += 3;
        for (double& each : product)
            each += 0.5;
    }
    for (int i = 0; i != 14; ++i)
        expect(sum[i] == static_cast<std::uint64_t>(self * 100 + i + 60), "an integer survives");
    for (int i = 0; i != 10; ++i)
        expect(product[i] == self + i / 16.0 + 10, "a floating-point number survives");
}

void run_fiber() {
    const int self = running;
    expect(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) % 16 == 0,
           "the stack is aligned as calls need it");
    trail = trail * 10 + static_cast<std::uint64_t>(self + 1);
    count_in_registers(self);
    for (;;)
        pause_fiber();
}

void fibers_take_turns() {
    for (int i = 0; i != 3; ++i) {
        fibers[i] = moat::explore::make_fiber(stacks[i] + stack_bytes, &run_fiber);
        resume(i);
    }
    expect(trail == 123, "each fiber begins once, in its order");
    for (int round = 0; round != 21; ++round)
        for (int i = 2; i >= 0; --i)
            resume(i);
    expect(trail == 123, "none begins again");
}

void count_steps() {
    for (std::uint64_t step = 1;; ++step) {
        trail = step;
        pause_fiber();
    }
}

/// What the explorer's snapshots rest on: the bytes from the stack pointer on are the fiber.
void a_copy_of_the_stack_is_a_copy_of_the_fiber() {
    static std::byte copy[stack_bytes];
    std::byte* const top = stacks[0] + stack_bytes;
    fibers[0] = moat::explore::make_fiber(top, &count_steps);
    resume(0);
    resume(0);
    const StackPointer then = fibers[0];
    const auto size = static_cast<std::size_t>(top - static_cast<std::byte*>(then));
    std::memcpy(copy, then, size);
    resume(0);
    resume(0);
    expect(trail == 4, "four steps were taken");
    std::memcpy(then, copy, size);
    fibers[0] = then;
    resume(0);
    expect(trail == 3, "after two steps comes the third");
}

} // namespace

int main() {
    fibers_take_turns();
    a_copy_of_the_stack_is_a_copy_of_the_fiber();
    std::puts("fibers: ok");
}
