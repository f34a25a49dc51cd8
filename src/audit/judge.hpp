// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The judge: derives findings from canaries, fault records and the device's answer. A pure
// function; it does not know what an injection did.
#pragma once

#include "moat/fault/mapping.hpp"

#include "audit/arena.hpp"
#include "audit/finding.hpp"

#include <span>
#include <vector>

namespace moat::audit {

/// Observations of one operation or, without an answer, between operations.
struct Observed {
    std::string_view operation = {};
    Case about = {};
    std::optional<Answer> answer = {};
    /// How many of the data's bytes the device writes on success; the rest is undefined.
    ByteCount fills = {};
    std::uint16_t requester = 0;
    ByteCount guard = {};
    std::span<const Inspected> kept = {}; ///< the driver's buffers
    /// The operation's, which are unmapped by now: its lists, then its data, if it has any.
    std::span<const Inspected> given = {};
    std::uint64_t unwritten = 0;         ///< bytes at the data's end
    std::optional<WrongData> wrong = {}; ///< of the data, as far as it was written
    /// The first case that may have changed what surrounds the driver's buffers.
    std::uint64_t kept_since = 0;
    std::span<const Inspected> retired = {};    ///< unmapped before, and changed since
    std::span<const fault::Record> faults = {}; ///< taken after the buffers were unmapped
};

/// Buffers unmapped before, for diagnosis. The caller records them.
struct Past {
    fault::History& history;
    const std::deque<Placed>& retired;
};

[[nodiscard]] fault::Mapping mapping_of(const Placed& placed, ByteCount guard);

[[nodiscard]] std::vector<Finding> judge(const Observed& seen, const Past& past);

} // namespace moat::audit
