// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The explorer's stack switches, checked without any library, so that the check runs on every
// processor with a compiler and an emulator. tests/explore/fiber_test.sh builds it with
// lab/explore/fiber.cpp.
#include "lab/explore/fiber.hpp"

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
std::uint64_t trail = 0; ///< the events, one digit each

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

constexpr std::size_t registers = 18;

/// Switches with `mark`, `mark` + 1, ... in the callee-saved registers, and stores in `found` their
/// values after the switch back.
#if defined(__aarch64__)
[[gnu::noinline]] std::size_t switch_with_marks(StackPointer* save, StackPointer to,
                                                std::uint64_t mark, std::uint64_t* found) {
    register StackPointer* x0 asm("x0") = save;
    register StackPointer x1 asm("x1") = to;
    register std::uint64_t x2 asm("x2") = mark;
    register std::uint64_t* x3 asm("x3") = found;
    asm volatile("str x3, [sp, #-16]!\n"
                 "mov x19, x2\n add x20, x2, #1\n add x21, x2, #2\n add x22, x2, #3\n"
                 "add x23, x2, #4\n add x24, x2, #5\n add x25, x2, #6\n add x26, x2, #7\n"
                 "add x27, x2, #8\n add x28, x2, #9\n add x2, x2, #10\n"
                 "fmov d8, x2\n add x2, x2, #1\n fmov d9, x2\n add x2, x2, #1\n"
                 "fmov d10, x2\n add x2, x2, #1\n fmov d11, x2\n add x2, x2, #1\n"
                 "fmov d12, x2\n add x2, x2, #1\n fmov d13, x2\n add x2, x2, #1\n"
                 "fmov d14, x2\n add x2, x2, #1\n fmov d15, x2\n"
                 "bl moat_explore_switch\n"
                 "ldr x3, [sp], #16\n"
                 "stp x19, x20, [x3, #0]\n stp x21, x22, [x3, #16]\n"
                 "stp x23, x24, [x3, #32]\n stp x25, x26, [x3, #48]\n"
                 "stp x27, x28, [x3, #64]\n stp d8, d9, [x3, #80]\n"
                 "stp d10, d11, [x3, #96]\n stp d12, d13, [x3, #112]\n"
                 "stp d14, d15, [x3, #128]\n"
                 : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)
                 :
                 : "memory", "cc", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
                   "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24",
                   "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6",
                   "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18",
                   "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29",
                   "v30", "v31");
    return 18;
}
#else
[[gnu::noinline]] std::size_t switch_with_marks(StackPointer* save, StackPointer to,
                                                std::uint64_t mark, std::uint64_t* found) {
    // 128 bytes below the stack pointer belong to the function (System V ABI, chapter 3.2.2).
    asm volatile("leaq -128(%%rsp), %%rsp\n"
                 "pushq %%rbp\n pushq %%rcx\n"
                 "movq %%rsp, %%r12\n subq $16, %%rsp\n andq $-16, %%rsp\n"
                 "movq %%r12, (%%rsp)\n"
                 "movq %%rdx, %%rbx\n leaq 1(%%rdx), %%rbp\n leaq 2(%%rdx), %%r12\n"
                 "leaq 3(%%rdx), %%r13\n leaq 4(%%rdx), %%r14\n leaq 5(%%rdx), %%r15\n"
                 "call moat_explore_switch\n"
                 "movq (%%rsp), %%rsp\n popq %%rcx\n"
                 "movq %%rbx, 0(%%rcx)\n movq %%rbp, 8(%%rcx)\n movq %%r12, 16(%%rcx)\n"
                 "movq %%r13, 24(%%rcx)\n movq %%r14, 32(%%rcx)\n movq %%r15, 40(%%rcx)\n"
                 "popq %%rbp\n leaq 128(%%rsp), %%rsp\n"
                 : "+D"(save), "+S"(to), "+d"(mark), "+c"(found)
                 :
                 : "memory", "cc", "rax", "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                   "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                   "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    return 6;
}
#endif

[[gnu::noinline]] void keep_registers(int self) {
    for (int round = 0; round != 20; ++round) {
        std::uint64_t found[registers] = {};
        const auto mark =
            static_cast<std::uint64_t>(self) * 1000 + static_cast<std::uint64_t>(round) * 20;
        const std::size_t count = switch_with_marks(&fibers[running], scheduler, mark, found);
        for (std::size_t i = 0; i != count; ++i)
            expect(found[i] == mark + i, "what a callee saves is there after a switch");
    }
}

void run_fiber() {
    const int self = running;
    expect(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) % 16 == 0,
           "the stack is aligned as calls need it");
    trail = trail * 10 + static_cast<std::uint64_t>(self + 1);
    keep_registers(self);
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

/// The explorer's snapshots rely on this: the bytes from the stack pointer on are the fiber.
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
