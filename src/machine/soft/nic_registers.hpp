// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bits of the network card's registers that its sources share.
#pragma once

#include <cstdint>

namespace moat::machine::soft {

namespace nic_status {

inline constexpr std::uint8_t driver_ok = 1U << 2;
inline constexpr std::uint8_t features_ok = 1U << 3;
inline constexpr std::uint8_t needs_reset = 1U << 6;

} // namespace nic_status

namespace nic_cause {

inline constexpr std::uint8_t queue = 1U << 0;
inline constexpr std::uint8_t configuration = 1U << 1;

} // namespace nic_cause

} // namespace moat::machine::soft
