// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The judge: from canaries, fault records and the device's own words to findings. It sees nothing
// else, and does nothing: what was done wrong on purpose, or to whom, it cannot know.
#pragma once

#include "moat/fault/history.hpp"

#include "audit/arena.hpp"
#include "audit/finding.hpp"

#include <span>
#include <vector>

namespace moat::audit {

/// What was seen of one operation, or, without an answer, between operations.
struct Observed {
    std::string_view operation = {};
    Case about = {};
    std::optional<Answer> answer = {};
    /// How many of the data's bytes the device writes where it succeeds; the rest is undefined.
    ByteCount fills = {};
    std::uint16_t requester = 0;
    ByteCount guard = {};
    std::span<const Placed> kept = {};  ///< the driver's
    std::span<const Placed> given = {}; ///< the operation's, its data last; unmapped by now
    /// For each of both, in their order; and the data's bytes at its end that were not written.
    std::span<const Changed> changed = {};
    std::uint64_t unwritten = 0;
    /// The first case that may have changed what surrounds the driver's buffers.
    std::uint64_t kept_since = 0;
    std::span<const ChangedAtRest> at_rest = {};
    std::span<const fault::Record> faults = {}; ///< taken after the buffers were unmapped
};

/// What was unmapped before, for diagnosis: their owner notes it.
struct Past {
    fault::History& history;
    const std::deque<Placed>& resting;
};

[[nodiscard]] std::vector<Finding> judge(const Observed& seen, const Past& past);

} // namespace moat::audit
