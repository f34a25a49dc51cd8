// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The stack switch in assembly for x86-64 (System V ABI, chapter 3.2.1) and AArch64 (AAPCS64,
// chapter 6.1); Boost.Context elsewhere, or where MOAT_EXPLORE_BOOST_CONTEXT is defined.
#include "lab/explore/fiber.hpp"

#include <cstdint>
#include <cstring>

#if !defined(MOAT_EXPLORE_BOOST_CONTEXT) && defined(__x86_64__) && defined(__ELF__)

asm(R"(
    .text
    .p2align 4
    .globl moat_explore_switch
    .type moat_explore_switch, @function
moat_explore_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmpq *%rcx
    .size moat_explore_switch, .-moat_explore_switch

    .globl moat_explore_fiber_start
    .hidden moat_explore_fiber_start
    .type moat_explore_fiber_start, @function
moat_explore_fiber_start:
    .cfi_startproc
    .cfi_undefined rip
    callq *%rbx
    ud2
    .cfi_endproc
    .size moat_explore_fiber_start, .-moat_explore_fiber_start
)");

namespace moat::explore {

extern "C" void moat_explore_fiber_start();

StackPointer make_fiber(std::byte* top, void (*entry)()) {
    // What the switch pops: r15, r14, r13, r12, rbx, rbp and the address to go to; the two words
    // above keep the stack aligned for a call.
    void* frame[9] = {};
    frame[4] = reinterpret_cast<void*>(entry);
    frame[6] = reinterpret_cast<void*>(&moat_explore_fiber_start);
    std::memcpy(top - sizeof frame, frame, sizeof frame);
    return top - sizeof frame;
}

} // namespace moat::explore

#elif !defined(MOAT_EXPLORE_BOOST_CONTEXT) && defined(__aarch64__) && defined(__ELF__)

asm(R"(
    .text
    .p2align 4
    .globl moat_explore_switch
    .type moat_explore_switch, %function
moat_explore_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    br x30
    .size moat_explore_switch, .-moat_explore_switch

    .globl moat_explore_fiber_start
    .hidden moat_explore_fiber_start
    .type moat_explore_fiber_start, %function
moat_explore_fiber_start:
    .cfi_startproc
    .cfi_undefined x30
    blr x19
    brk #1
    .cfi_endproc
    .size moat_explore_fiber_start, .-moat_explore_fiber_start
)");

namespace moat::explore {

extern "C" void moat_explore_fiber_start();

StackPointer make_fiber(std::byte* top, void (*entry)()) {
    void* frame[20] = {};
    frame[0] = reinterpret_cast<void*>(entry);                      // x19
    frame[11] = reinterpret_cast<void*>(&moat_explore_fiber_start); // x30
    std::memcpy(top - sizeof frame, frame, sizeof frame);
    return top - sizeof frame;
}

} // namespace moat::explore

#else

#include <boost/context/detail/fcontext.hpp>

namespace moat::explore {

namespace {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

/// Boost's entry has no argument of ours; all fibers of a thread begin in the same function.
thread_local void (*begin)() = nullptr;

/// The switching fiber passes the place to save its stack pointer.
void save_origin(transfer_t from) {
    *static_cast<StackPointer*>(from.data) = from.fctx;
}

void start(transfer_t from) {
    save_origin(from);
    begin();
}

} // namespace

extern "C" void moat_explore_switch(StackPointer* save, StackPointer to) {
    save_origin(jump_fcontext(to, save));
}

StackPointer make_fiber(std::byte* top, void (*entry)()) {
    constexpr std::size_t least_bytes = 4096;
    begin = entry;
    return make_fcontext(top, least_bytes, &start);
}

} // namespace moat::explore

#endif
