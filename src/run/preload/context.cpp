// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/context.hpp"

#include <algorithm>
#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <cstring>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace moat::run {

namespace {

// Where gregs has the registers, in the order of encoding.
constexpr std::array<int, 16> places = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                        REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                        REG_R12, REG_R13, REG_R14, REG_R15};

constexpr std::size_t xmm_offset = 160;     ///< in the FXSAVE image
constexpr std::size_t kernel_offset = 464;  ///< Linux's description of what follows the image
constexpr std::size_t present_offset = 512; ///< XSTATE_BV
constexpr std::uint32_t extended = 0x46505853;

/// A slice of every vector register, as XSAVE lays it out.
struct Slice {
    unsigned component; ///< its bit in XSTATE_BV
    unsigned first_register;
    unsigned registers;
    std::size_t first_byte; ///< in a register
    std::size_t bytes;
};

constexpr std::array<Slice, 4> slices = {{
    {1, 0, 16, 0, 16},  // XMM
    {2, 0, 16, 16, 16}, // YMM's upper half
    {6, 0, 16, 32, 32}, // ZMM's upper half
    {7, 16, 16, 0, 64}, // ZMM16 to ZMM31
}};

/// Where each slice begins; 0 where the CPU has none.
[[nodiscard]] std::array<std::size_t, slices.size()> find_offsets() {
    std::array<std::size_t, slices.size()> offsets = {xmm_offset};
    for (std::size_t i = 1; i < slices.size(); ++i) {
        unsigned size = 0;
        unsigned offset = 0;
        unsigned c = 0;
        unsigned d = 0;
        if (__get_cpuid_count(0xd, slices[i].component, &size, &offset, &c, &d) != 0 && size != 0)
            offsets[i] = offset;
    }
    return offsets;
}

/// The vector state in a signal's frame.
class VectorState {
  public:
    explicit VectorState(const ucontext_t& context)
        : image_(reinterpret_cast<std::byte*>(context.uc_mcontext.fpregs)) {
        if (image_ == nullptr)
            return;
        std::uint32_t magic = 0;
        std::memcpy(&magic, image_ + kernel_offset, sizeof magic);
        if (magic != extended)
            return;
        std::memcpy(&supported_, image_ + kernel_offset + 8, sizeof supported_);
        std::memcpy(&present_, image_ + present_offset, sizeof present_);
    }

    void read(std::span<Registers::Vector> into) const {
        for_each_slice([&](const Slice& slice, std::byte* at) {
            if ((present_ >> slice.component & 1) == 0)
                return; // zero
            for (unsigned i = 0; i < slice.registers; ++i)
                std::memcpy(into[slice.first_register + i].data() + slice.first_byte,
                            at + i * slice.bytes, slice.bytes);
        });
    }

    void write(unsigned number, const Registers::Vector& value) {
        for_each_slice([&](const Slice& slice, std::byte* at) {
            if (number - slice.first_register >= slice.registers)
                return;
            const auto part = std::span(value).subspan(slice.first_byte, slice.bytes);
            if ((present_ >> slice.component & 1) == 0) {
                if (std::ranges::all_of(part, [](std::byte each) { return each == std::byte{}; }))
                    return; // stays in its initial state
                std::memset(at, 0, slice.registers * slice.bytes);
                present_ |= std::uint64_t{1} << slice.component;
                std::memcpy(image_ + present_offset, &present_, sizeof present_);
            }
            std::memcpy(at + (number - slice.first_register) * slice.bytes, part.data(),
                        slice.bytes);
        });
    }

  private:
    template <class Function>
    void for_each_slice(Function function) const {
        static const std::array<std::size_t, slices.size()> offsets = find_offsets();
        if (image_ == nullptr)
            return;
        for (std::size_t i = 0; i < slices.size(); ++i)
            if (offsets[i] != 0 && (supported_ >> slices[i].component & 1) != 0)
                function(slices[i], image_ + offsets[i]);
    }

    std::byte* image_;
    std::uint64_t supported_ = 0b10; ///< without XSAVE: XMM, in the image
    std::uint64_t present_ = 0b10;
};

// The bases of FS and GS, which no frame has.
[[gnu::target("fsgsbase")]] void read_bases(Registers& registers) {
    static const bool readable = (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;
    if (readable) {
        registers.fs_base = __builtin_ia32_rdfsbase64();
        registers.gs_base = __builtin_ia32_rdgsbase64();
        return;
    }
    syscall(SYS_arch_prctl, ARCH_GET_FS, &registers.fs_base);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &registers.gs_base);
}

} // namespace

Registers registers_of(const ucontext_t& context) {
    Registers registers;
    const auto& general = context.uc_mcontext.gregs;
    for (std::size_t i = 0; i < places.size(); ++i)
        registers.general[i] = static_cast<std::uint64_t>(general[places[i]]);
    registers.instruction_pointer = static_cast<std::uint64_t>(general[REG_RIP]);
    registers.flags = static_cast<std::uint64_t>(general[REG_EFL]);
    read_bases(registers);
    VectorState(context).read(registers.vectors);
    return registers;
}

void set_registers(ucontext_t& context, const Registers& registers, const Step& step) {
    auto& general = context.uc_mcontext.gregs;
    for (std::size_t i = 0; i < places.size(); ++i)
        general[places[i]] = static_cast<greg_t>(registers.general[i]);
    general[REG_RIP] = static_cast<greg_t>(registers.instruction_pointer);
    general[REG_EFL] = static_cast<greg_t>(registers.flags);
    if (step.vector)
        VectorState(context).write(*step.vector, registers.vectors[*step.vector]);
}

} // namespace moat::run
