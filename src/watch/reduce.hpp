// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Shrinks a recording to the few events that a fault needs, by delta debugging (Zeller,
// Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) with the follower as the
// oracle.
#pragma once

#include "moat/core/result.hpp"

#include "fault/dma_event.hpp"

#include <cstddef>
#include <cstdint>

namespace moat::watch {

/// Passes every event of a recording, in order; may be called again.
using EventSource = FunctionRef<Result<void>(fault::DmaEventSink sink)>;

struct Reduction {
    std::uint64_t events = 0; ///< of the recording
    std::size_t kept = 0;
};

/// Passes to `sink` the events without which the finding of the fault `which`, counted from 0,
/// would differ: its kind, its mapping and label, its distance and bytes. No further event can be
/// left out alone. Errors: `not_found` (fewer faults), `limit` (too many events before the fault),
/// those of `source`.
[[nodiscard]] Result<Reduction> reduce(EventSource source, std::uint64_t which,
                                       fault::DmaEventSink sink);

} // namespace moat::watch
