// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/guarded_copy.hpp"

namespace moat::run {

namespace {

// Labels of the two instructions that may fault.
extern "C" {
[[gnu::visibility("hidden")]] extern const char moat_guarded_bytes[];
[[gnu::visibility("hidden")]] extern const char moat_guarded_word[];
}

constexpr greg_t instruction_bytes = 2; ///< of both

} // namespace

// Not inlined: a label exists once.

[[gnu::noinline]] std::size_t guarded_copy(void* to, const void* from, std::size_t bytes) {
    std::size_t left = bytes;
    asm volatile("moat_guarded_bytes: rep movsb" : "+D"(to), "+S"(from), "+c"(left) : : "memory");
    return bytes - left;
}

[[gnu::noinline]] bool guarded_copy_8(void* to, const void* from) {
    const void* const before = from;
    asm volatile("moat_guarded_word: movsq" : "+D"(to), "+S"(from) : : "memory");
    return from != before; // an instruction that faults changes nothing
}

bool end_guarded_copy(ucontext_t& context) {
    greg_t& at = context.uc_mcontext.gregs[REG_RIP];
    if (at != reinterpret_cast<greg_t>(moat_guarded_bytes) &&
        at != reinterpret_cast<greg_t>(moat_guarded_word))
        return false;
    at += instruction_bytes;
    return true;
}

} // namespace moat::run
