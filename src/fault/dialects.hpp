// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One function a driver or emulator: a line in, what it says out. No state; lines that belong
// together are put together by decode.cpp, the only caller.
#pragma once

#include "moat/fault/decode.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::fault {

/// Each of them returns nothing where the line is not its own.
[[nodiscard]] std::optional<Decoded> decode_amd(std::string_view line);
[[nodiscard]] std::optional<Decoded> decode_smmu_v2(std::string_view line);
[[nodiscard]] std::optional<Decoded> decode_riscv(std::string_view line);
[[nodiscard]] std::optional<Decoded> decode_virtio_iommu(std::string_view line);
[[nodiscard]] std::optional<Decoded> decode_qemu(std::string_view line);
[[nodiscard]] std::optional<Decoded> decode_vfio(std::string_view line);
[[nodiscard]] std::optional<Decoded> decode_tracepoint(std::string_view line);

/// The reason may be missing: old kernels print it in a second line.
[[nodiscard]] std::optional<Decoded> decode_intel(std::string_view line);
[[nodiscard]] bool has_intel_reason(const Decoded& decoded);
/// Reads "[fault reason 05] PTE Write access is not set". Return: whether the line has one.
[[nodiscard]] bool add_intel_reason(std::string_view line, Decoded& decoded);

/// "event 0x10 received:", or lost events; four lines with a word each follow the former.
[[nodiscard]] std::optional<Decoded> decode_smmu_v3(std::string_view line);
/// One of those lines.
[[nodiscard]] std::optional<std::uint64_t> smmu_word(std::string_view line);
void add_smmu_words(const std::array<std::uint64_t, 4>& words, Decoded& decoded);
/// The lines in words that newer kernels print after those. Return: whether it is one of them and
/// is about the same fault.
[[nodiscard]] bool add_smmu_names(std::string_view line, Decoded& decoded);

} // namespace moat::fault
