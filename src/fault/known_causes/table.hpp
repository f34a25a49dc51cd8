// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The parts of the table of known causes, in the order of the search: special rows come before
// general ones. A row needs a source, and a log in tests/fault/known_causes_test.cpp.
#pragma once

#include "fault/known_cause.hpp"

namespace moat::fault {

using EventKind = LogEvent::Kind;

inline constexpr std::string_view gpu_drivers = "amdgpu|radeon|nouveau|nvidia|i915|xe";
inline constexpr std::string_view network_drivers =
    "e1000e|e1000|igb|igc|ixgbe|i40e|ice|r8169|tg3|bnx2x|bnxt_en|mlx4_core|mlx5_core|atlantic|alx|"
    "iwlwifi|ath10k_pci|ath11k_pci|mt7921e|rtw89_8852be";

extern const std::span<const KnownCause> graphics_causes;
extern const std::span<const KnownCause> interrupt_causes;
extern const std::span<const KnownCause> platform_causes;
extern const std::span<const KnownCause> device_causes;
extern const std::span<const KnownCause> unit_causes;
extern const std::span<const KnownCause> vfio_causes;
extern const std::span<const KnownCause> dma_api_causes;
extern const std::span<const KnownCause> general_causes;

} // namespace moat::fault
