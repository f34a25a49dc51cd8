// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The assembly code that x86_agent.hpp declares. Real mode enters at offset 0 of a segment (QEMU),
// long mode at moat_x86_agent_long_mode (KVM). It lies at linear and physical address 0x10000.
asm(R"(
    .pushsection .rodata, "a", @progbits
    .globl moat_x86_agent, moat_x86_agent_long_mode, moat_x86_agent_gdt, moat_x86_agent_end
    .set base, 0x10000
    .set mailbox, 0x1000            # cr3, cr4, count
    .set slots, 0x2000              # address, state
    .set state_done, 2
    .set state_page_fault, 3
    .set state_other, 4

    .code16
moat_x86_agent:
    cli
    movw    %cs, %ax
    movw    %ax, %ds
    lgdtl   gdt_pointer - moat_x86_agent
    movl    mailbox + 8, %eax
    movl    %eax, %cr4
    movl    mailbox, %eax
    movl    %eax, %cr3
    movl    $0xc0000080, %ecx       # EFER: LME and NXE
    rdmsr
    orl     $0x900, %eax
    wrmsr
    movl    %cr0, %eax
    orl     $0x80010001, %eax       # PG, WP and PE
    movl    %eax, %cr0
    ljmpl   $8, $(base + moat_x86_agent_long_mode - moat_x86_agent)

    .code64
moat_x86_agent_long_mode:
    movl    $16, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %ss
    movl    $(base + 0x10000), %esp
    lidt    idt_pointer(%rip)
    movl    $(base + slots), %ebx
    movq    base + mailbox + 16, %rcx
next:
    testq   %rcx, %rcx
    jz      finished
    movq    (%rbx), %rdi
    testq   $1, 8(%rbx)
    jnz     write
    movb    (%rdi), %al
    jmp     answered
write:
    movb    %al, (%rdi)
answered:
    movq    $state_done, 8(%rbx)
step:
    addq    $16, %rbx
    decq    %rcx
    jmp     next
finished:
    movb    $0x0a, %al
    outb    %al, $0xe9
halted:
    hlt
    jmp     halted

page_fault:
    movq    %cr2, %rdx
    movl    $state_page_fault, %eax
    cmpq    (%rbx), %rdx
    je      faulted
other_fault:
    movl    $state_other, %eax
faulted:
    movq    %rax, 8(%rbx)
    addq    $8, %rsp                # the error code
    leaq    step(%rip), %rax
    movq    %rax, (%rsp)            # go on behind the access
    iretq

    .balign 8
moat_x86_agent_gdt:
    .quad   0, 0x00af9b000000ffff, 0x00cf93000000ffff
idt:
    .fill   13 * 2, 8, 0
    .short  other_fault - moat_x86_agent, 8, 0x8e00, base >> 16 # general protection
    .quad   0
    .short  page_fault - moat_x86_agent, 8, 0x8e00, base >> 16
    .quad   0
gdt_pointer:
    .short  23
    .long   base + moat_x86_agent_gdt - moat_x86_agent
idt_pointer:
    .short  15 * 16 - 1
    .quad   base + idt - moat_x86_agent
moat_x86_agent_end:
    .popsection
)");
