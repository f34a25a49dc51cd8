/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the hooks need of an architecture: the registers that an ftrace hook may change, and where a
 * function calls its hook.
 */
#ifndef MOAT_GUARD_REGISTERS_H
#define MOAT_GUARD_REGISTERS_H

#include <linux/ftrace.h>

/* Later kernels hide the structure. */
#ifdef arch_ftrace_regs
#define guard_regs(fregs) arch_ftrace_regs(fregs)
#else
#define guard_regs(fregs) (fregs)
#endif

/* arm64 is compiled and was never run. */
#if defined(CONFIG_X86_64)
#include <asm/text-patching.h>
#define guard_argument_0(fregs) (guard_regs(fregs)->regs.di)
#define guard_argument_1(fregs) (guard_regs(fregs)->regs.si)
#define guard_argument_2(fregs) (guard_regs(fregs)->regs.dx)
#define guard_result(fregs) (guard_regs(fregs)->regs.ax)
#define guard_target(fregs) (guard_regs(fregs)->regs.ip)
#ifdef CONFIG_X86_KERNEL_IBT
#define GUARD_SITE 4 /* after endbr64 */
#else
#define GUARD_SITE 0
#endif
#define GUARD_JUMP "jmp "
#define GUARD_RETURN ASM_ENDBR ASM_RET
#elif defined(CONFIG_ARM64)
#define guard_argument_0(fregs) (guard_regs(fregs)->regs[0])
#define guard_argument_1(fregs) (guard_regs(fregs)->regs[1])
#define guard_argument_2(fregs) (guard_regs(fregs)->regs[2])
#define guard_result(fregs) (guard_regs(fregs)->regs[0])
#define guard_target(fregs) (guard_regs(fregs)->pc)
#ifdef CONFIG_ARM64_BTI_KERNEL
#define GUARD_SITE 8 /* after bti c; mov x9, lr */
#else
#define GUARD_SITE 4
#endif
#define GUARD_JUMP "b "
#define GUARD_RETURN "ret\n"
#else
#error "moat_guard: only x86-64 and arm64 are supported: its hooks change argument registers"
#endif

/* Whether a call instruction is there. */
static inline bool guard_is_call(const u8 *at)
{
#ifdef CONFIG_X86_64
	return *at == CALL_INSN_OPCODE;
#else
	return *(const __le32 *)at >> 26 == 0x25; /* bl */
#endif
}

#endif
