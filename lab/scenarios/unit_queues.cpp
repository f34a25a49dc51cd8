// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped queues of the IOMMUs' drivers under the explorer, each against a model of the unit:
// two threads use a queue that is so small that it becomes full and wraps.
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/scenario.hpp"
#include "lab/scenarios/units/amd_commands.hpp"
#include "lab/scenarios/units/smmuv3_commands.hpp"
#include "lab/scenarios/units/smmuv3_events.hpp"
#include "lab/scenarios/units/virtio_requests.hpp"
#include "lab/scenarios/units/vtd_queue.hpp"

#include <utility>

namespace moat::scenarios {

namespace units {

namespace {

template <template <class> class Queue>
[[nodiscard]] explore::Program program(const Configuration& text) {
    const std::string& variant = text.at("variant");
    if (variant == "shipped")
        return Queue<ExploredSync>::program(text);
    if (variant == "unlocked")
        return Queue<Unlocked>::program(text);
    if (variant == "registers-unordered")
        return Queue<UnorderedRegisters>::program(text);
    return mutant_program<Queue>(text);
}

[[nodiscard]] Parameter variants(std::vector<std::string> mutants) {
    mutants.insert(mutants.begin(), "shipped");
    return {.name = "variant",
            .preset = "shipped",
            .help = "the shipped queue, or a mutant that breaks one rule",
            .values = std::move(mutants)};
}

[[nodiscard]] Scenario submitting(const char* name, const char* summary, const char* batch,
                                  std::vector<std::string> mutants) {
    Scenario scenario = {.name = name, .summary = summary};
    scenario.parameters = {
        {.name = "runs", .preset = "1", .help = "calls of each thread", .most = Bounds::most},
        {.name = "batch", .preset = batch, .help = "commands of a call", .most = Bounds::most},
        {.name = "failure",
         .preset = "none",
         .help = "whether the unit may end at any command, with an error or in silence",
         .values = {failure_names.begin(), failure_names.end()}},
        variants(std::move(mutants))};
    scenario.scope = [](const Configuration& text) {
        return "variant " + text.at("variant") + ": " + counted(Bounds::submitters, "submitter") +
               " of " + counted(number(text, "runs"), "call") + " of " +
               counted(number(text, "batch"), "command") + ", a unit whose failure is " +
               text.at("failure");
    };
    return scenario;
}

} // namespace

} // namespace units

std::vector<Scenario> unit_queue_scenarios() {
    using namespace units;
    Scenario vtd = submitting("vtd-queue", "the shipped VT-d invalidation queue, of 4 slots", "2",
                              {"unlocked", "registers-unordered", "tail-first", "status-any",
                               "status-relaxed", "batch-too-long", "error-unseen"});
    vtd.program = &program<VtdQueue>;
    Scenario amd =
        submitting("amd-commands", "the shipped command buffer of AMD's IOMMU, of 4 entries", "2",
                   {"unlocked", "registers-unordered", "tail-first", "status-any", "status-relaxed",
                    "batch-too-long", "stop-unseen"});
    amd.program = &program<AmdCommands>;
    Scenario commands =
        submitting("smmu-commands", "the shipped SMMUv3 command queue, of 2 entries", "1",
                   {"unlocked", "registers-unordered", "producer-first", "no-sync",
                    "sync-unawaited", "wrap-kept", "batch-too-long", "error-unseen"});
    commands.program = &program<SmmuCommands>;
    Scenario requests =
        submitting("virtio-requests", "the shipped virtio-iommu request queue, of 2 slots", "1",
                   {"unlocked", "offered-first", "offer-relaxed", "notified-first", "used-kept",
                    "used-relaxed"});
    requests.program = &program<VirtioRequests>;
    Scenario events = {
        .name = "smmu-events",
        .summary = "the shipped SMMUv3 event queue, of 2 entries: overflows, and no other loss",
        .parameters = {{.name = "takes", .preset = "2", .help = "calls of each thread", .most = 3},
                       {.name = "events", .preset = "4", .help = "events of the unit", .most = 6},
                       variants({"unlocked", "registers-unordered", "freed-first", "wrap-ignored",
                                 "overflow-unseen", "overflow-unacknowledged"})},
        .program = &program<SmmuEvents>,
        .scope = [](const Configuration& text) {
            return "variant " + text.at("variant") + ": 2 takers of " +
                   counted(number(text, "takes"), "call") + ", a unit with " +
                   counted(number(text, "events"), "event");
        }};
    return {std::move(vtd), std::move(amd), std::move(commands), std::move(events),
            std::move(requests)};
}

} // namespace moat::scenarios
