// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Threads in the order of their first steps, and each step in words.
#include "schedule_picture.hpp"

#include "lab/explore/replay.hpp"
#include "lab/explore/timeline.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace moat::tools {

nlohmann::ordered_json schedule_picture(const explore::Machine& machine,
                                        const ScheduleTexts& texts) {
    using nlohmann::ordered_json;
    std::vector<explore::Actor> threads;
    ordered_json steps = ordered_json::array();
    for (std::size_t at = 0; at != machine.depth(); ++at) {
        const explore::Step& step = machine.step_at(at);
        auto thread = std::ranges::find(threads, step.actor);
        if (thread == threads.end())
            thread = threads.insert(thread, step.actor);
        steps.push_back({{"thread", thread - threads.begin()},
                         {"text", explore::describe_effect(machine, step)}});
    }
    ordered_json names = ordered_json::array();
    for (const explore::Actor each : threads)
        names.push_back(machine.actor_name(each));
    ordered_json picture = {{"moat", 1},
                            {"kind", "schedule"},
                            {"title", texts.title},
                            {"claim", texts.claim},
                            {"schedule", explore::summary(machine)},
                            {"replay", texts.replay},
                            {"threads", names},
                            {"steps", steps},
                            {"stale", nullptr},
                            {"violation", nullptr}};
    if (const auto stale = explore::find_stale_read(machine))
        picture["stale"] = {
            {"knew", stale->knew}, {"changed", stale->changed}, {"looked", stale->looked}};
    if (const auto& violation = machine.violation())
        picture["violation"] = {{"thread", machine.actor_name(violation->actor)},
                                {"kind", name(violation->kind)},
                                {"text", violation->text}};
    return picture;
}

} // namespace moat::tools
