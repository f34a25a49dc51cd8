// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What is known of a client's request, for reports: its time, and no stack.
#pragma once

#include "moat/fault/mapping.hpp"
#include "moat/fault/report.hpp"

#include <chrono>
#include <cstdint>

namespace moat::serve {

inline constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};

[[nodiscard]] inline fault::Event event_now() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return {.time_ns = static_cast<std::uint64_t>(now / std::chrono::nanoseconds(1))};
}

} // namespace moat::serve
