// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Scenarios, which `moat explore` runs by name: parameters, and the program that they make.
// A configuration is text, so that a replay file can carry it. One .cpp file a scenario.
#pragma once

#include "moat/core/result.hpp"

#include "lab/explore/program.hpp"

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moat::scenarios {

struct Parameter {
    const char* name = nullptr;
    const char* preset = nullptr; ///< the default value
    const char* help = nullptr;
    std::vector<std::string> values = {}; ///< the valid ones; empty: a number
    unsigned most = 0;                    ///< the largest number
};

/// The values of all parameters of a scenario, as `complete` returns it.
using Configuration = std::map<std::string, std::string>;

struct Scenario {
    const char* name = nullptr;
    const char* summary = nullptr;
    std::vector<Parameter> parameters = {};
    explore::Program (*program)(const Configuration&) = nullptr;
    /// "1 walker, 2 faulters; 1 iteration; 3 attempts": the bounds of the program, for the claim.
    std::string (*scope)(const Configuration&) = nullptr;
};

[[nodiscard]] std::span<const Scenario> all();

/// Return: the scenario, or nullptr.
[[nodiscard]] const Scenario* find(std::string_view name);

/// `given`, completed with presets. Errors: `mismatch` for an unknown name or value.
[[nodiscard]] Result<Configuration> complete(const Scenario& scenario, const Configuration& given);

/// "variant=old walkers=1"
[[nodiscard]] std::string to_text(const Configuration& configuration);
[[nodiscard]] Configuration parse(std::string_view text);

[[nodiscard]] unsigned number(const Configuration& configuration, const char* name);

/// "3 walkers", "1 walker"
[[nodiscard]] std::string counted(unsigned count, const std::string& what);

// One for each file.
[[nodiscard]] Scenario pud_slot_scenario();
[[nodiscard]] Scenario page_table_scenario();
[[nodiscard]] Scenario iova_flush_scenario();
[[nodiscard]] Scenario iova_scenario();
[[nodiscard]] Scenario iommu_scenario();
[[nodiscard]] Scenario readers_scenario();
[[nodiscard]] Scenario dma_registry_scenario();
[[nodiscard]] Scenario dma_past_scenario();
[[nodiscard]] Scenario address_space_scenario();
[[nodiscard]] std::vector<Scenario> unit_queue_scenarios();
[[nodiscard]] std::vector<Scenario> protocol_scenarios();

} // namespace moat::scenarios
