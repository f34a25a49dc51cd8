// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an audit can find about a device. Values only: judge.hpp makes them, the command prints
// them.
#pragma once

#include "moat/core/range.hpp"
#include "moat/fault/diagnose.hpp"

#include "audit/driver.hpp"
#include "audit/pattern.hpp"
#include "audit/plan.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace moat::audit {

enum class FindingKind : std::uint8_t {
    wrote_outside,            ///< wrote outside a buffer, or into one that it may only read
    read_outside,             ///< read outside a buffer, or from one that it may only write
    bypasses_iommu,           ///< accessed memory that is mapped nowhere
    success_though_blocked,   ///< reported success after the IOMMU blocked an access
    touched_after_completion, ///< accessed, or tried to access, a buffer after its operation
    left_unwritten,           ///< reported success without writing the end of the data
    fault_without_access,     ///< the IOMMU blocked an access that no operation explains
    hang,                     ///< no answer
    wrong_data, ///< reported success, but loaded other data than an earlier case stored
};

[[nodiscard]] constexpr std::string_view name(FindingKind kind) {
    constexpr std::array<std::string_view, 9> names = {"wrote-outside",
                                                       "read-outside",
                                                       "bypasses-iommu",
                                                       "success-though-blocked",
                                                       "touched-after-completion",
                                                       "left-unwritten",
                                                       "fault-without-access",
                                                       "hang",
                                                       "wrong-data"};
    return names[static_cast<std::size_t>(kind)];
}

/// How well a number of bytes is known.
enum class Known : std::uint8_t {
    exactly,
    at_least, ///< the IOMMU reports the page of an access, not its bytes, and stops it there
};

/// How loaded data differs from what was stored.
struct WrongData {
    std::uint64_t offset = 0; ///< in the data, of the first wrong word
    std::uint64_t bytes = 0;  ///< of wrong words, which have 8 bytes each
    Origin expected = {};     ///< at `offset`
    /// What is there instead, if a case stored it somewhere.
    std::optional<Origin> origin = {};
    std::uint64_t first_case = 0; ///< the first of the cases that stored any of this
};

struct Finding {
    FindingKind kind = FindingKind::hang;
    std::string operation = {};
    Case about = {};
    /// The first case that a run needs to reproduce it; the last is `about`.
    std::uint64_t first_case = 0;
    std::string buffer = {}; ///< a label; empty if no buffer is concerned
    IovaRange range = {};    ///< the buffer's
    fault::Side side = fault::Side::inside;
    std::uint64_t bytes = 0; ///< on that side, or inside
    Known known = Known::exactly;
    Answer answer = {};
    std::optional<fault::Record> record = {};
    std::optional<WrongData> contents = {}; ///< of wrong_data
    std::string report = {};                ///< text, with line ends
    std::uint64_t times = 1;                ///< how many findings are alike
};

} // namespace moat::audit
