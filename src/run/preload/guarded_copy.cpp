// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/guarded_copy.hpp"

#include <emmintrin.h>

namespace moat::run {

namespace {

// Labels of the instructions that may fault, and of where a short copy goes on byte by byte.
extern "C" {
[[gnu::visibility("hidden")]] extern const char moat_guarded_load[];
[[gnu::visibility("hidden")]] extern const char moat_guarded_store[];
[[gnu::visibility("hidden")]] extern const char moat_guarded_rest[];
[[gnu::visibility("hidden")]] extern const char moat_guarded_bytes[];
[[gnu::visibility("hidden")]] extern const char moat_guarded_word[];
}

constexpr greg_t instruction_bytes = 2; ///< of an instruction that is skipped when it faults

[[nodiscard]] greg_t address_of(const char* label) {
    return reinterpret_cast<greg_t>(label);
}

} // namespace

// Not inlined: a label exists once.

// `rep movsb` takes longer to begin than a short copy takes.
[[gnu::noinline]] std::size_t guarded_copy(void* to, const void* from, std::size_t bytes) {
    std::size_t left = bytes;
    __m128i part;
    asm volatile("cmp $128, %[left]\n\t"
                 "ja moat_guarded_bytes\n"
                 "0: sub $16, %[left]\n\t"
                 "jb moat_guarded_rest\n"
                 "moat_guarded_load: movdqu (%[from]), %[part]\n"
                 "moat_guarded_store: movdqu %[part], (%[to])\n\t"
                 "add $16, %[from]\n\t"
                 "add $16, %[to]\n\t"
                 "jmp 0b\n"
                 "moat_guarded_rest: add $16, %[left]\n\t"
                 "jz 1f\n"
                 "moat_guarded_bytes: rep movsb\n"
                 "1:"
                 : [to] "+D"(to), [from] "+S"(from), [left] "+c"(left), [part] "=x"(part)
                 :
                 : "memory", "cc");
    return bytes - left;
}

[[gnu::noinline]] bool guarded_copy_8(void* to, const void* from) {
    const void* const before = from;
    asm volatile("moat_guarded_word: movsq" : "+D"(to), "+S"(from) : : "memory");
    return from != before; // an instruction that faults changes nothing
}

bool end_guarded_copy(ucontext_t& context) {
    greg_t& at = context.uc_mcontext.gregs[REG_RIP];
    if (at == address_of(moat_guarded_load) || at == address_of(moat_guarded_store))
        at = address_of(moat_guarded_rest); // ends at the byte that faults
    else if (at == address_of(moat_guarded_bytes) || at == address_of(moat_guarded_word))
        at += instruction_bytes;
    else
        return false;
    return true;
}

} // namespace moat::run
