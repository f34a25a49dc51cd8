// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every form of instruction that emulate knows, against the CPU: the form faults on a protected
// page; emulated at the address of the fault and executed on the page without protection, it leaves
// the same registers, flags and memory.
#include "moat/core/check.hpp"

#include "run/instruction/arithmetic.hpp"
#include "run/instruction/instruction.hpp"
#include "run/instruction/native.hpp"

#include <algorithm>
#include <array>
#include <asm/prctl.h>
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace moat::run {

namespace {

constexpr std::size_t page = 4096;

struct Form {
    std::string_view text;
    std::span<const std::byte> code;
};

// Assembles TEXT, in Intel's syntax, without executing it.
#define MOAT_FORM(TEXT)                                                                            \
    ([] {                                                                                          \
        const std::byte* begin = nullptr;                                                          \
        const std::byte* end = nullptr;                                                            \
        asm volatile(".pushsection .rodata\n.intel_syntax noprefix\n771: " TEXT                    \
                     "\n772:\n.att_syntax prefix\n.popsection\n"                                   \
                     "lea 771b(%%rip), %0\nlea 772b(%%rip), %1"                                    \
                     : "=r"(begin), "=r"(end));                                                    \
        return Form{TEXT, {begin, end}};                                                           \
    }())

/// Addresses: RDI is in one page and RSI in the other, RBX is an index, RBP the first page less
/// FS's base.
std::vector<Form> forms() {
    return {
        MOAT_FORM("mov eax, [rdi]"),
        MOAT_FORM("mov rax, [rdi]"),
        MOAT_FORM("mov ax, [rdi]"),
        MOAT_FORM("mov al, [rdi]"),
        MOAT_FORM("mov ah, [rdi]"),
        MOAT_FORM("mov r9d, [rdi + rbx * 4 + 8]"),
        MOAT_FORM("mov r15b, [rdi - 1]"),
        MOAT_FORM("mov sil, [rdi]"),
        MOAT_FORM("mov eax, fs:[rbp]"),
        MOAT_FORM("mov edi, [rdi]"),
        MOAT_FORM("mov [rdi], eax"),
        MOAT_FORM("mov [rdi], rax"),
        MOAT_FORM("mov [rdi], ax"),
        MOAT_FORM("mov [rdi], dl"),
        MOAT_FORM("mov [rdi], dh"),
        MOAT_FORM("mov [rdi + rbx * 8], r14"),
        MOAT_FORM("mov byte ptr [rdi], 0x85"),
        MOAT_FORM("mov word ptr [rdi], 0x8765"),
        MOAT_FORM("mov dword ptr [rdi + 4], 0x87654321"),
        MOAT_FORM("mov qword ptr [rdi], -2"),
        MOAT_FORM("movzx eax, byte ptr [rdi]"),
        MOAT_FORM("movzx eax, word ptr [rdi]"),
        MOAT_FORM("movzx r8, byte ptr [rdi]"),
        MOAT_FORM("movzx ax, byte ptr [rdi]"),
        MOAT_FORM("movsx eax, byte ptr [rdi]"),
        MOAT_FORM("movsx rax, word ptr [rdi]"),
        MOAT_FORM("movsx ax, byte ptr [rdi]"),
        MOAT_FORM("movsxd rax, dword ptr [rdi]"),
        MOAT_FORM("movnti [rdi], eax"),
        MOAT_FORM("movnti [rdi], r10"),
        MOAT_FORM("movbe eax, [rdi]"),
        MOAT_FORM("movbe rax, [rdi]"),
        MOAT_FORM("movbe [rdi], ax"),
        MOAT_FORM("movbe [rdi], edx"),
        MOAT_FORM("movdiri [rdi], eax"),
        MOAT_FORM("movdir64b rdi, [rsi]"),
        MOAT_FORM("test dword ptr [rdi], 0x80000001"),
        MOAT_FORM("test byte ptr [rdi], 1"),
        MOAT_FORM("test word ptr [rdi], 0x8000"),
        MOAT_FORM("test qword ptr [rdi], -0x7fffffff"),
        MOAT_FORM("test [rdi], eax"),
        MOAT_FORM("cmp dword ptr [rdi], -1"),
        MOAT_FORM("cmp byte ptr [rdi], 0x7f"),
        MOAT_FORM("cmp word ptr [rdi], 0x1234"),
        MOAT_FORM("cmp qword ptr [rdi], 5"),
        MOAT_FORM("cmp eax, [rdi]"),
        MOAT_FORM("cmp [rdi], al"),
        MOAT_FORM("add eax, [rdi]"),
        MOAT_FORM("add [rdi], rax"),
        MOAT_FORM("add word ptr [rdi], -3"),
        MOAT_FORM("lock add dword ptr [rdi], 7"),
        MOAT_FORM("adc eax, [rdi]"),
        MOAT_FORM("adc [rdi], al"),
        MOAT_FORM("sub eax, [rdi]"),
        MOAT_FORM("sub [rdi], ax"),
        MOAT_FORM("sub byte ptr [rdi], 1"),
        MOAT_FORM("sbb rax, [rdi]"),
        MOAT_FORM("sbb [rdi], eax"),
        MOAT_FORM("and eax, [rdi]"),
        MOAT_FORM("and dword ptr [rdi], -2"),
        MOAT_FORM("and qword ptr [rdi], -2"),
        MOAT_FORM("and byte ptr [rdi], 0xfe"),
        MOAT_FORM("or rax, [rdi]"),
        MOAT_FORM("or dword ptr [rdi], 0x10000"),
        MOAT_FORM("or word ptr [rdi], ax"),
        MOAT_FORM("xor eax, [rdi]"),
        MOAT_FORM("xor [rdi], r12b"),
        MOAT_FORM("inc dword ptr [rdi]"),
        MOAT_FORM("inc byte ptr [rdi]"),
        MOAT_FORM("dec qword ptr [rdi]"),
        MOAT_FORM("dec word ptr [rdi]"),
        MOAT_FORM("not dword ptr [rdi]"),
        MOAT_FORM("not byte ptr [rdi]"),
        MOAT_FORM("neg dword ptr [rdi]"),
        MOAT_FORM("neg qword ptr [rdi]"),
        MOAT_FORM("xchg [rdi], eax"),
        MOAT_FORM("xchg [rdi], rdx"),
        MOAT_FORM("xchg [rdi], ah"),
        MOAT_FORM("xadd [rdi], edx"),
        MOAT_FORM("lock xadd [rdi], rax"),
        MOAT_FORM("xadd [rdi], al"),
        MOAT_FORM("cmpxchg [rdi], edx"),
        MOAT_FORM("lock cmpxchg [rdi], r11"),
        MOAT_FORM("cmpxchg [rdi], dx"),
        MOAT_FORM("cmpxchg [rdi], dl"),
        MOAT_FORM("bt dword ptr [rdi], 31"),
        MOAT_FORM("bts dword ptr [rdi], 3"),
        MOAT_FORM("btr qword ptr [rdi], 63"),
        MOAT_FORM("btc word ptr [rdi], 9"),
        MOAT_FORM("bt [rdi], r13d"),
        MOAT_FORM("lock bts [rdi], r13"),
        MOAT_FORM("btr [rdi], r13w"),
        MOAT_FORM("btc [rdi], r13d"),
        MOAT_FORM("cmovz eax, [rdi]"),
        MOAT_FORM("cmovnb rax, [rdi]"),
        MOAT_FORM("cmovle ax, [rdi]"),
        MOAT_FORM("cmovbe eax, [rdi]"),
        MOAT_FORM("cmovs eax, [rdi]"),
        MOAT_FORM("cmovo eax, [rdi]"),
        MOAT_FORM("cmovp eax, [rdi]"),
        MOAT_FORM("cmovl eax, [rdi]"),
        MOAT_FORM("setz byte ptr [rdi]"),
        MOAT_FORM("setnle byte ptr [rdi]"),
        MOAT_FORM("push qword ptr [rdi]"),
        MOAT_FORM("push word ptr [rdi]"),
        MOAT_FORM("pop qword ptr [rdi]"),
        MOAT_FORM("pop word ptr [rdi]"),
        MOAT_FORM("clflush [rdi]"),
        MOAT_FORM("clflushopt [rdi]"),
        MOAT_FORM("movsb"),
        MOAT_FORM("movsq"),
        MOAT_FORM("rep movsb"),
        MOAT_FORM("rep movsw"),
        MOAT_FORM("rep movsd"),
        MOAT_FORM("rep movsq"),
        MOAT_FORM("stosd"),
        MOAT_FORM("rep stosb"),
        MOAT_FORM("rep stosw"),
        MOAT_FORM("rep stosd"),
        MOAT_FORM("rep stosq"),
        MOAT_FORM("lodsb"),
        MOAT_FORM("rep lodsd"),
        MOAT_FORM("lodsq"),
        MOAT_FORM("cmpsb"),
        MOAT_FORM("repe cmpsd"),
        MOAT_FORM("repne cmpsb"),
        MOAT_FORM("scasd"),
        MOAT_FORM("repne scasb"),
        MOAT_FORM("repe scasq"),
        MOAT_FORM("movups xmm0, [rdi + 3]"),
        MOAT_FORM("movups [rdi + 3], xmm1"),
        MOAT_FORM("movaps xmm9, [rdi]"),
        MOAT_FORM("movaps [rdi], xmm2"),
        MOAT_FORM("movupd xmm3, [rdi]"),
        MOAT_FORM("movapd [rdi], xmm3"),
        MOAT_FORM("movdqu xmm4, [rdi + 1]"),
        MOAT_FORM("movdqu [rdi + 1], xmm4"),
        MOAT_FORM("movdqa xmm5, [rdi]"),
        MOAT_FORM("movdqa [rdi], xmm15"),
        MOAT_FORM("lddqu xmm6, [rdi]"),
        MOAT_FORM("movntdq [rdi], xmm6"),
        MOAT_FORM("movntps [rdi], xmm6"),
        MOAT_FORM("movntdqa xmm7, [rdi]"),
        MOAT_FORM("movd xmm0, dword ptr [rdi]"),
        MOAT_FORM("movd dword ptr [rdi], xmm0"),
        MOAT_FORM("movq xmm0, qword ptr [rdi]"),
        MOAT_FORM("movq qword ptr [rdi], xmm0"),
        MOAT_FORM("movss xmm1, dword ptr [rdi]"),
        MOAT_FORM("movss dword ptr [rdi], xmm1"),
        MOAT_FORM("movsd xmm1, qword ptr [rdi]"),
        MOAT_FORM("movsd qword ptr [rdi], xmm1"),
        MOAT_FORM("movlps xmm1, [rdi]"),
        MOAT_FORM("movlpd [rdi], xmm1"),
        MOAT_FORM("movhps xmm1, [rdi]"),
        MOAT_FORM("movhpd [rdi], xmm1"),
        MOAT_FORM("vmovups xmm0, [rdi]"),
        MOAT_FORM("vmovups ymm0, [rdi + 5]"),
        MOAT_FORM("vmovups [rdi + 5], ymm0"),
        MOAT_FORM("vmovdqu xmm8, [rdi]"),
        MOAT_FORM("vmovdqu ymm8, [rdi]"),
        MOAT_FORM("vmovdqu [rdi], ymm12"),
        MOAT_FORM("vmovdqa ymm8, [rdi]"),
        MOAT_FORM("vmovdqa [rdi], xmm8"),
        MOAT_FORM("vmovaps ymm11, [rdi]"),
        MOAT_FORM("vmovntdq [rdi], ymm8"),
        MOAT_FORM("vlddqu ymm1, [rdi]"),
        MOAT_FORM("vmovd xmm0, dword ptr [rdi]"),
        MOAT_FORM("vmovq qword ptr [rdi], xmm0"),
        MOAT_FORM("vmovss xmm1, dword ptr [rdi]"),
        MOAT_FORM("vmovsd qword ptr [rdi], xmm1"),
        MOAT_FORM("vmovlps xmm1, xmm2, [rdi]"),
        MOAT_FORM("vmovhps xmm1, xmm2, [rdi]"),
        MOAT_FORM("vmovhpd [rdi], xmm2"),
        MOAT_FORM("vmovdqu64 ymm16, [rdi]"),
        MOAT_FORM("vmovdqu64 [rdi + 32], ymm31"),
        MOAT_FORM("vmovdqu8 zmm17, [rdi + 1]"),
        MOAT_FORM("vmovdqu64 [rdi], zmm5"),
        MOAT_FORM("vmovdqa64 zmm30, [rdi]"),
        MOAT_FORM("vmovups zmm2, [rdi]"),
    };
}

/// Two pages: the device's, which can be protected, and the program's.
class Memory {
  public:
    Memory()
        : bytes_(static_cast<std::byte*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
                 2 * page) {
        MOAT_CHECK(bytes_.data() != MAP_FAILED, "mmap");
    }

    ~Memory() { (void)munmap(bytes_.data(), bytes_.size()); }

    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    void protect(bool on) {
        MOAT_CHECK(mprotect(bytes_.data(), page, on ? PROT_NONE : PROT_READ | PROT_WRITE) == 0,
                   "mprotect");
    }

    [[nodiscard]] std::span<std::byte> bytes() { return bytes_; }

    [[nodiscard]] std::uint64_t start() const {
        return reinterpret_cast<std::uint64_t>(bytes_.data());
    }

  private:
    std::span<std::byte> bytes_;
};

using Image = std::vector<std::byte>;

class Trial {
  public:
    explicit Trial(std::uint64_t seed) : random_(seed) {}

    /// Numbers at which flags change, and any.
    [[nodiscard]] std::uint64_t number() {
        constexpr std::array<std::uint64_t, 8> special = {
            0, 1, 0x7f, 0x80, 0x7fff'ffff, 0x8000'0000, ~std::uint64_t{0}, std::uint64_t{1} << 63};
        const std::uint64_t choice = random_() % 16;
        return choice < special.size() ? special[choice] : random_();
    }

    [[nodiscard]] Registers registers(const Memory& memory) {
        Registers registers;
        for (std::uint64_t& each : registers.general)
            each = number();
        for (Registers::Vector& each : registers.vectors)
            for (std::byte& byte : each)
                byte = static_cast<std::byte>(random_());
        (void)syscall(SYS_arch_prctl, ARCH_GET_FS, &registers.fs_base);
        const bool swapped = random_() % 2 == 0;
        const std::uint64_t device = memory.start() + page / 2;
        const std::uint64_t plain = memory.start() + page + page / 2;
        registers.general[7] = swapped ? plain : device;   // RDI
        registers.general[6] = swapped ? device : plain;   // RSI
        registers.general[5] = device - registers.fs_base; // RBP
        registers.general[4] = plain + 512;                // RSP
        registers.general[3] = random_() % 8;              // RBX
        registers.general[1] = random_() % 8;              // RCX
        registers.general[13] = random_() % 4096 - 2048;   // a bit within the page
        registers.flags = 0x202 | (random_() & (flag::arithmetic | flag::direction));
        return registers;
    }

    [[nodiscard]] Image image() {
        Image image(2 * page);
        const std::uint64_t same = number();
        const bool equal = random_() % 2 == 0; // for comparisons
        for (std::size_t at = 0; at < image.size(); at += 8) {
            const std::uint64_t value = equal ? same : number();
            std::memcpy(image.data() + at, &value, sizeof value);
        }
        return image;
    }

  private:
    std::mt19937_64 random_;
};

[[nodiscard]] std::uint64_t defined_flags(std::string_view text) {
    for (const std::string_view bits : {"bt ", "bts ", "btr ", "btc "})
        if (text.starts_with(bits) || text.starts_with("lock " + std::string(bits)))
            return flag::carry | flag::zero | flag::direction;
    for (const std::string_view logical : {"and ", "or ", "xor ", "test "})
        if (text.starts_with(logical))
            return (flag::arithmetic | flag::direction) & ~flag::adjust;
    return flag::arithmetic | flag::direction;
}

void expect_same(const Registers& emulated, const Registers& native, std::string_view text) {
    EXPECT_EQ(emulated.general, native.general);
    EXPECT_EQ(emulated.instruction_pointer, native.instruction_pointer);
    const std::uint64_t defined = defined_flags(text);
    EXPECT_EQ(emulated.flags & defined, native.flags & defined);
    for (std::size_t i = 0; i < native.vectors.size(); ++i)
        EXPECT_EQ(emulated.vectors[i], native.vectors[i]) << "vector register " << i;
}

/// Return: whether the instruction reached the device's page.
bool compare_once(const Form& form, Memory& memory, std::uint64_t seed) {
    Trial trial(seed);
    const Registers registers = trial.registers(memory);
    Image image = trial.image();
    memory.protect(false);
    std::ranges::copy(image, memory.bytes().begin());
    memory.protect(true);
    const NativeRun faulted = execute_natively(registers, form.code);
    if (faulted.end != NativeEnd::fault)
        return false;
    const auto inside = [&](std::uint64_t address, std::size_t bytes) {
        return address >= memory.start() && address - memory.start() + bytes <= image.size();
    };
    const auto load = [&](std::uint64_t address, std::span<std::byte> into) {
        if (!inside(address, into.size()))
            return false;
        std::memcpy(into.data(), image.data() + (address - memory.start()), into.size());
        return true;
    };
    const auto store = [&](std::uint64_t address, std::span<const std::byte> from) {
        if (!inside(address, from.size()))
            return false;
        std::memcpy(image.data() + (address - memory.start()), from.data(), from.size());
        return true;
    };
    Registers emulated = registers;
    const auto step = emulate(emulated, form.code, faulted.fault_address, {load, store});
    std::array<char, 160> why{};
    EXPECT_TRUE(step.has_value()) << (step ? 0 : step.error().describe(why)) << why.data();
    memory.protect(false);
    const NativeRun native = execute_natively(registers, form.code);
    EXPECT_EQ(native.end, NativeEnd::done);
    expect_same(emulated, native.registers, form.text);
    EXPECT_TRUE(std::ranges::equal(memory.bytes(), image)) << "other memory";
    return true;
}

[[nodiscard]] int failures() {
    return testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
}

[[nodiscard]] bool exists(const Form& form, Memory& memory) {
    Trial trial(0);
    memory.protect(false);
    return execute_natively(trial.registers(memory), form.code).end != NativeEnd::invalid;
}

TEST(Instruction, every_form_leaves_what_the_cpu_leaves) {
    Memory memory;
    unsigned missing = 0;
    for (const Form& form : forms()) {
        SCOPED_TRACE(form.text);
        if (!exists(form, memory)) {
            ++missing;
            continue;
        }
        unsigned reached = 0;
        const int before = failures();
        for (std::uint64_t seed = 1; seed <= 60 && failures() == before; ++seed)
            if (compare_once(form, memory, seed))
                ++reached;
        EXPECT_TRUE(reached > 8 || failures() != before) << reached;
    }
    EXPECT_LT(missing, 20U) << "a CPU without AVX, AVX-512 and MOVDIR64B";
}

} // namespace

} // namespace moat::run
