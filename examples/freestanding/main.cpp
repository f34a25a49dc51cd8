// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat inside a program without a C or C++ library: what a kernel or a boot loader embeds.
// The lint step links it with -nostdlib and runs it; it talks to Linux by one instruction.
#include "moat/core/range.hpp"
#include "moat/sync/lock.hpp"
#include "moat/sync/serial.hpp"

#include <cstddef>
#include <cstdint>

// What compilers call by themselves, and what moat calls when a check fails.
extern "C" {
void* memset(void* to, int value, std::size_t count) {
    for (volatile auto* byte = static_cast<unsigned char*>(to); count != 0; --count)
        *byte++ = static_cast<unsigned char>(value);
    return to;
}

void* memcpy(void* to, const void* from, std::size_t count) {
    const auto* source = static_cast<const unsigned char*>(from);
    for (volatile auto* byte = static_cast<unsigned char*>(to); count != 0; --count)
        *byte++ = *source++;
    return to;
}

[[noreturn]] void moat_check_failed(const char*, const char*, const char*, int) {
    __builtin_trap();
}

[[noreturn, gnu::force_align_arg_pointer]] void _start();
}

namespace {

[[noreturn]] void exit_with(long status) {
#if defined(__x86_64__)
    constexpr long exit_group = 231;
    asm volatile("syscall" : : "a"(exit_group), "D"(status) : "rcx", "r11", "memory");
#endif
    __builtin_trap();
}

using namespace moat;

/// Return: 0 when all is as it should be.
long run() {
    const Result<IovaRange> top = IovaRange::make(Iova(~std::uint64_t{0xfff}), ByteCount(0x1000));
    if (!top || top->last().value() != ~std::uint64_t{0})
        return 1;
    if (IovaRange::make(top->start(), ByteCount(0x1001)).error().code() != ErrorCode::overflow)
        return 2;
    SerialSync::Mutex mutex;
    const ExclusiveLock lock(mutex);
    return mutex.try_lock() ? 3 : 0;
}

} // namespace

void _start() {
    exit_with(run());
}
