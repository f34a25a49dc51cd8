// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Chooses and switches on the events that moat reads: those of an own instance, with filters,
// stack triggers and probes; of another instance, those that are on already.
#pragma once

#include "event_catalog.hpp"
#include "instance.hpp"

#include <expected>
#include <set>
#include <string>
#include <vector>

namespace moat::watch {

struct EventSetup {
    EventCatalog catalog = {};
    std::set<Meaning> meanings = {}; ///< that are on
    bool has_stacks = false;
    /// Probes of a kind that the kernel skips in an interrupt of itself (kprobe_profile).
    bool has_kprobes = false;
    /// What is on, and what is missing: one sentence each.
    std::vector<std::string> sentences = {};
};

/// Sets up an own instance. `devices`: the filter; empty: all.
[[nodiscard]] std::expected<EventSetup, std::string>
switch_on(const TraceInstance& instance, const std::set<std::string, std::less<>>& devices,
          bool stacks);

/// Reads what another instance records.
[[nodiscard]] std::expected<EventSetup, std::string> find_events(const TraceInstance& instance);

} // namespace moat::watch
