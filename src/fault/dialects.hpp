// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One function per driver or emulator decodes its lines. No state; decode.cpp, the only caller,
// combines lines that belong together.
#pragma once

#include "moat/fault/decode.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::fault {

/// Each returns nothing for lines of others.
[[nodiscard]] std::optional<LogEvent> decode_amd(std::string_view line);
[[nodiscard]] std::optional<LogEvent> decode_smmu_v2(std::string_view line);
[[nodiscard]] std::optional<LogEvent> decode_riscv(std::string_view line);
[[nodiscard]] std::optional<LogEvent> decode_virtio_iommu(std::string_view line);
[[nodiscard]] std::optional<LogEvent> decode_qemu(std::string_view line);
[[nodiscard]] std::optional<LogEvent> decode_vfio(std::string_view line);
[[nodiscard]] std::optional<LogEvent> decode_tracepoint(std::string_view line);

/// The reason may be absent: old kernels print it in a second line.
[[nodiscard]] std::optional<LogEvent> decode_intel(std::string_view line);
[[nodiscard]] bool has_intel_reason(const LogEvent& decoded);
/// Reads "[fault reason 05] PTE Write access is not set". Return: whether the line has one.
[[nodiscard]] bool add_intel_reason(std::string_view line, LogEvent& decoded);

/// "event 0x10 received:", followed by four lines of one word each; or lost events.
[[nodiscard]] std::optional<LogEvent> decode_smmu_v3(std::string_view line);
/// One of those four lines.
[[nodiscard]] std::optional<std::uint64_t> smmu_word(std::string_view line);
void add_smmu_words(const std::array<std::uint64_t, 4>& words, LogEvent& decoded);
/// The text lines that newer kernels print afterwards. Return: whether the line is one, about the
/// same fault.
[[nodiscard]] bool add_smmu_names(std::string_view line, LogEvent& decoded);

} // namespace moat::fault
