// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Who stands behind the ID that an IOMMU reports, where it is not the device itself: a bridge, an
// I/O APIC, a VMD, or a StreamID. Answers print it.
#pragma once

#include "log_context.hpp"

#include <string>

namespace moat::fault {

/// "a bridge on bus 05 sends for 05:04.0 (snd_hda_intel)"; empty if nothing is special.
[[nodiscard]] std::string requester_note(const LogEvent& event, const LogContext& context);

} // namespace moat::fault
