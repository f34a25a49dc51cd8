// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The list of scenarios, and configurations as text.
#include "lab/scenarios/scenario.hpp"

#include "moat/core/check.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>

namespace moat::scenarios {

namespace {

[[nodiscard]] bool parse_number(std::string_view text, unsigned& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
}

[[nodiscard]] bool accepts(const Parameter& parameter, const std::string& value) {
    unsigned as_number = 0;
    return parameter.values.empty()
               ? parse_number(value, as_number) && as_number <= parameter.most
               : std::ranges::find(parameter.values, value) != parameter.values.end();
}

} // namespace

std::span<const Scenario> all() {
    static const std::vector<Scenario> scenarios = [] {
        std::vector<Scenario> list = protocol_scenarios();
        list.insert(list.begin(), dma_past_scenario());
        list.insert(list.begin(), dma_registry_scenario());
        list.insert(list.begin(), readers_scenario());
        std::ranges::move(unit_queue_scenarios(), std::inserter(list, list.begin()));
        list.insert(list.begin(), iommu_scenario());
        list.insert(list.begin(), iova_flush_scenario());
        list.insert(list.begin(), iova_scenario());
        list.insert(list.begin(), address_space_scenario());
        list.insert(list.begin(), page_table_scenario());
        list.insert(list.begin(), pud_slot_scenario());
        return list;
    }();
    return scenarios;
}

const Scenario* find(std::string_view name) {
    for (const Scenario& each : all())
        if (name == each.name)
            return &each;
    return nullptr;
}

Result<Configuration> complete(const Scenario& scenario, const Configuration& given) {
    Configuration configuration;
    for (const Parameter& parameter : scenario.parameters) {
        const auto found = given.find(parameter.name);
        const std::string value = found == given.end() ? parameter.preset : found->second;
        if (!accepts(parameter, value))
            return fail(ErrorCode::mismatch, "a parameter does not take this value");
        configuration[parameter.name] = value;
    }
    for (const auto& [name, value] : given)
        if (!configuration.contains(name))
            return fail(ErrorCode::mismatch, "the scenario has no parameter of this name");
    return configuration;
}

std::string to_text(const Configuration& configuration) {
    std::string text;
    for (const auto& [name, value] : configuration)
        text += (text.empty() ? "" : " ") + name + "=" + value;
    return text;
}

Configuration parse(std::string_view text) {
    Configuration configuration;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        const std::string_view word = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        const std::size_t equals = std::min(word.find('='), word.size());
        configuration[std::string(word.substr(0, equals))] =
            word.substr(std::min(equals + 1, word.size()));
    }
    return configuration;
}

unsigned number(const Configuration& configuration, const char* name) {
    unsigned value = 0;
    const auto found = configuration.find(name);
    MOAT_CHECK(found != configuration.end() && parse_number(found->second, value),
               "a complete configuration holds this number");
    return value;
}

std::string counted(unsigned count, const std::string& what) {
    return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

} // namespace moat::scenarios
