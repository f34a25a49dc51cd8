// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat inside a program without a C or C++ library: what a kernel or a boot loader embeds.
// Linked with -nostdlib, by which neither library is there; it talks to Linux by one instruction.
#include "moat/core/range.hpp"
#include "moat/page_table/edit.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/table_memory.hpp"
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
using namespace moat::literals;

// Where a kernel would have its own pages for tables.
constexpr std::size_t table_count = 16;
constexpr std::size_t table_bytes = 4096;
alignas(table_bytes) std::byte table_memory[table_count * table_bytes];
TableHeader table_headers[table_count];

using Pool = TablePool<SerialSync>;
using Types = Tree<formats::X86_64<4>, SerialSync, Pool>;

constexpr VirtualAddress window(0xffff'8000'0000'0000);
constexpr PhysicalAddress memory(0x4000'0000);
constexpr ByteCount window_bytes = 2_MiB + 8_KiB;
constexpr ByteCount last_byte = window_bytes - 1_B;

/// Return: 0 when what was mapped translates and what was not does not.
long map_and_look(PageTable<Types>& table) {
    auto invalidate = [](const InvalidationRequest<VirtualAddress>&) {};
    auto edit = table.edit(invalidate);
    const auto mapped = edit.map(window, window_bytes, memory, read_write);
    edit.finish();
    if (!mapped)
        return 2;
    const auto reader = table.reader();
    const auto last = reader.translate(window + last_byte);
    if (!last || last->physical() != memory + last_byte || last->leaf_lg2() != 12)
        return 3;
    return reader.translate(window + window_bytes) ? 4 : 0;
}

/// Return: 0 when all is as it should be.
long run() {
    Pool pool(table_memory, PhysicalAddress(0x10'0000), table_headers, 12);
    auto table = PageTable<Types>::create(pool);
    return table ? map_and_look(*table) : 1;
}

} // namespace

void _start() {
    exit_with(run());
}
