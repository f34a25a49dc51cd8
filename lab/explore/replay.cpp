// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The text of replay files, one fact a line; and the replay itself.
#include "lab/explore/replay.hpp"

#include "joined.hpp"
#include "lab/explore/races.hpp"

#include <cctype>
#include <charconv>
#include <utility>

namespace moat::explore {

namespace {

/// Cuts the first word off `line`.
[[nodiscard]] std::string_view take_word(std::string_view& line) {
    const std::size_t end = std::min(line.find(' '), line.size());
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
    return word;
}

template <class Number>
[[nodiscard]] bool take_number(std::string_view& line, Number& number) {
    const std::string_view word = take_word(line);
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    return error == std::errc() && end == word.data() + word.size();
}

[[nodiscard]] bool parse_model(std::string_view text, MemoryModelKind& model) {
    for (auto kind : {MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11})
        if (text == name(kind)) {
            model = kind;
            return true;
        }
    return false;
}

/// Return: whether the line is valid.
[[nodiscard]] bool parse_line(std::string_view line, Replay& replay) {
    if (line.empty() || line.front() == '#')
        return true;
    const std::string_view key = take_word(line);
    if (key == "scenario")
        replay.scenario = line;
    else if (key == "configuration")
        replay.configuration = line;
    else if (key == "memory-model")
        return parse_model(line, replay.memory_model);
    else if (key == "failing-allocations")
        return take_number(line, replay.failing_allocations);
    else if (key == "most-steps")
        return take_number(line, replay.most_steps) && replay.most_steps != 0;
    else if (key == "violation")
        replay.violation = line;
    else if (key == "step") {
        ReplayStep step;
        std::size_t number = 0;
        if (!take_number(line, number) || number != replay.steps.size() ||
            !take_number(line, step.choice.actor) || !take_number(line, step.choice.option))
            return false;
        step.expected = line;
        replay.steps.push_back(std::move(step));
    } else
        return false;
    return true;
}

} // namespace

std::string describe(const Machine& machine, const Step& step) {
    std::string text = machine.actor_name(step.actor) + " " + std::string(name(step.touch.kind));
    if (step.touch.location != nowhere)
        text.append(" ").append(machine.location_name(step.touch.location));
    return text;
}

std::string summary(const Machine& machine) {
    std::string text;
    for (std::size_t at = 0; at != machine.depth();) {
        const Actor actor = machine.step_at(at).actor;
        std::size_t end = at;
        while (end != machine.depth() && machine.step_at(end).actor == actor)
            ++end;
        std::string letters = machine.actor_name(actor);
        letters.front() = static_cast<char>(std::toupper(letters.front()));
        std::string label(1, letters.front());
        if (std::isdigit(static_cast<unsigned char>(letters.back())) != 0)
            label += std::string(1, letters.back()) + "x";
        if (actor >= first_buffer)
            label += "b";
        text += joined({text.empty() ? "" : " ", label, std::to_string(end - at)});
        at = end;
    }
    return text;
}

Replay record_replay(const Machine& machine) {
    Replay replay;
    replay.memory_model = machine.options().memory_model;
    replay.failing_allocations = machine.options().failing_allocations;
    replay.most_steps = machine.options().most_steps;
    if (machine.violation())
        replay.violation =
            std::string(name(machine.violation()->kind)) + ": " + machine.violation()->text;
    for (std::size_t at = 0; at != machine.depth(); ++at) {
        const Step& step = machine.step_at(at);
        replay.steps.push_back({{step.actor, step.option}, describe(machine, step)});
    }
    return replay;
}

std::string to_text(const Replay& replay, const std::string& summary) {
    std::string text = joined({"moat-replay ", std::to_string(Replay::version)});
    text += joined({"\nscenario ", replay.scenario, "\nconfiguration ", replay.configuration});
    text += joined({"\nmemory-model ", name(replay.memory_model)});
    text += joined({"\nfailing-allocations ", std::to_string(replay.failing_allocations)});
    text += joined({"\nmost-steps ", std::to_string(replay.most_steps), "\n"});
    if (!replay.violation.empty())
        text += joined({"violation ", replay.violation, "\n"});
    text += joined({"# ", summary, "\n# step: number, actor, alternative, what it does\n"});
    for (std::size_t i = 0; i != replay.steps.size(); ++i) {
        const ReplayStep& step = replay.steps[i];
        text += joined({"step ", std::to_string(i), " ", std::to_string(step.choice.actor), " ",
                        std::to_string(step.choice.option), " ", step.expected, "\n"});
    }
    return text;
}

Result<Replay> parse_replay(std::string_view text) {
    Replay replay;
    std::uint64_t number = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (number++ == 0) {
            if (take_word(line) != "moat-replay" || line != std::to_string(Replay::version))
                return moat::fail(ErrorCode::unsupported, "not a replay file of this version");
            continue;
        }
        if (!parse_line(line, replay))
            return moat::fail(ErrorCode::mismatch, "a line of the replay file is not understood",
                              {"line", number});
    }
    if (number == 0)
        return moat::fail(ErrorCode::empty, "the replay file is empty");
    return replay;
}

MachineOptions machine_options(const Replay& replay) {
    MachineOptions options;
    options.memory_model = replay.memory_model;
    options.failing_allocations = replay.failing_allocations;
    options.most_steps = replay.most_steps;
    return options;
}

std::optional<std::string> follow(Machine& machine, const Replay& replay) {
    machine.start();
    for (std::size_t i = 0; i != replay.steps.size(); ++i) {
        const auto& [choice, expected] = replay.steps[i];
        const std::string where = joined({"step ", std::to_string(i), ": expected ", expected});
        if (machine.violation())
            return where + ", found the end: " + machine.violation()->text;
        if (choice.actor >= most_actors || !machine.enabled().contains(choice.actor))
            return where + ", found that it cannot move";
        if (choice.option >= machine.options(choice.actor))
            return where + ", found fewer alternatives";
        machine.step(choice.actor, choice.option);
        if (const std::string found = describe(machine, machine.step_at(i)); found != expected)
            return where + ", found " + found;
    }
    if (machine.enabled().empty())
        judge(machine);
    const std::string found = machine.violation() ? std::string(name(machine.violation()->kind)) +
                                                        ": " + machine.violation()->text
                                                  : "";
    if (found != replay.violation)
        return joined({"at the end: expected ",
                       replay.violation.empty() ? "no violation" : replay.violation, ", found ",
                       found.empty() ? "none" : found});
    return {};
}

} // namespace moat::explore
