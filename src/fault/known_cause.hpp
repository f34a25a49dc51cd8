// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// KnownCause: what a pattern of facts means, and what to do. The table is known_causes/, one row a
// cause; the first row that matches is the likeliest.
#pragma once

#include "log_context.hpp"
#include "log_group.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace moat::fault {

/// Whether a person may ignore the fault. The worst comes last.
enum class Verdict : std::uint8_t {
    harmless,        ///< nothing was lost and nothing will be
    not_started,     ///< a program or virtual machine cannot use the device; nothing is damaged
    device_unusable, ///< the device fails, or will
    data_at_risk,    ///< data was lost, or may be
};

[[nodiscard]] std::string_view name(Verdict verdict);

/// Facts of a group and its log. Facts that are not set match everything.
struct CausePattern {
    std::optional<LogEvent::Kind> kind = {};
    std::optional<Origin> origin = {};
    std::optional<Reason> reason = {};
    std::optional<Access> access = {};
    /// All addresses of the group lie between these, which are included.
    std::array<std::uint64_t, 2> address = {0, ~std::uint64_t{0}};
    /// "00:02.0", in any segment.
    std::string_view device = {};
    /// Names of drivers, separated by '|'.
    std::string_view drivers = {};
    /// Texts of which the event's text or its line has one, separated by '|'; case does not matter.
    std::string_view texts = {};
    std::uint16_t vendor = 0;
    std::optional<int> error = {};
    std::optional<Milestone> after = {};
    /// The group began within so many seconds after the kernel.
    std::uint64_t before_s = ~std::uint64_t{0};
    /// The hardware's code is one of these.
    std::array<std::uint16_t, 4> codes = {};
    /// What lies at the first address, as a physical address, has this text.
    std::string_view lies_in = {};
    /// The addresses have three in a row, a page or less apart.
    bool consecutive = false;
    /// A listing of devices lacks the function.
    bool absent = false;
    /// The device is a disk's controller, by its class or its driver.
    bool storage = false;
};

struct KnownCause {
    std::string_view id; ///< stable, for scripts
    CausePattern when = {};
    Verdict verdict = Verdict::device_unusable;
    std::string_view cause;      ///< the likeliest cause
    std::string_view next;       ///< the next command to run, or the next thing to look at
    std::string_view helps = {}; ///< a setting that helps, and its cost
    std::string_view fix = {};   ///< a known correction
    std::string_view source;     ///< where this is documented
};

/// The table, in parts.
[[nodiscard]] std::span<const std::span<const KnownCause>> known_causes();

[[nodiscard]] bool matches(const CausePattern& pattern, const LogGroup& group,
                           const LogContext& context);

/// The first cause that matches. The table ends with a row that matches everything.
[[nodiscard]] const KnownCause& likeliest_cause(const LogGroup& group, const LogContext& context);

/// The driver of a group's device, from its events or from the log; empty if unknown.
[[nodiscard]] std::string driver_of(const LogGroup& group, const LogContext& context);

} // namespace moat::fault
