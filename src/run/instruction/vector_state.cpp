// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/instruction/vector_state.hpp"

#include <algorithm>
#include <array>
#include <cpuid.h>
#include <cstring>

namespace moat::run {

namespace {

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

} // namespace

VectorState VectorState::of_signal(std::byte* image) {
    VectorState state(image);
    if (image == nullptr)
        return state;
    std::uint32_t magic = 0;
    std::memcpy(&magic, image + kernel_offset, sizeof magic);
    if (magic != extended)
        return state;
    std::memcpy(&state.supported_, image + kernel_offset + 8, sizeof state.supported_);
    std::memcpy(&state.present_, image + present_offset, sizeof state.present_);
    return state;
}

VectorState VectorState::of_ptrace(std::span<std::byte> image) {
    if (image.size() < present_offset + 64)
        return VectorState(nullptr);
    VectorState state(image.data());
    std::memcpy(&state.supported_, image.data() + kernel_offset, sizeof state.supported_);
    std::memcpy(&state.present_, image.data() + present_offset, sizeof state.present_);
    return state;
}

template <class Function>
void VectorState::for_each_slice(Function function) const {
    static const std::array<std::size_t, slices.size()> offsets = find_offsets();
    if (image_ == nullptr)
        return;
    for (std::size_t i = 0; i < slices.size(); ++i)
        if (offsets[i] != 0 && (supported_ >> slices[i].component & 1) != 0)
            function(slices[i], image_ + offsets[i]);
}

void VectorState::read(std::span<Registers::Vector> into) const {
    for_each_slice([&](const Slice& slice, std::byte* at) {
        if ((present_ >> slice.component & 1) == 0)
            return; // zero
        for (unsigned i = 0; i < slice.registers; ++i)
            std::memcpy(into[slice.first_register + i].data() + slice.first_byte,
                        at + i * slice.bytes, slice.bytes);
    });
}

void VectorState::write(unsigned number, const Registers::Vector& value) {
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
        std::memcpy(at + (number - slice.first_register) * slice.bytes, part.data(), slice.bytes);
    });
}

} // namespace moat::run
