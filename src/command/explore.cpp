// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat explore`: explores a scenario, replays a schedule, or merges shards' results.
// The scenarios live in lab/scenarios/, the explorer in lab/explore/.
#include "moat/core/text.hpp"

#include "command/merge.hpp"
#include "command/picture/picture.hpp"
#include "command/subcommands.hpp"
#include "command/symbols.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "command/terminal/progress.hpp"
#include "command/terminal/terminal.hpp"
#include "lab/explore/explorer.hpp"
#include "lab/explore/races.hpp"
#include "lab/explore/replay.hpp"
#include "lab/explore/stacks.hpp"
#include "lab/explore/timeline.hpp"
#include "lab/scenarios/scenario.hpp"
#include "platform/stack.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <malloc.h>
#include <nlohmann/json.hpp>
#include <sstream>

namespace moat::tools {

namespace {

using nlohmann::ordered_json;
using scenarios::Scenario;

struct ExploreArguments {
    explore::ExploreOptions options;
    std::map<std::string, scenarios::Configuration> configurations; ///< by scenario
    std::string shard = "0/1";
    std::string replay;
    std::string write_replay;
    PictureFiles pictures;
    std::vector<std::string> merge;
    double seconds = 0;
    bool json = false;
};

[[nodiscard]] Exit exit_of(const explore::Report& report) {
    if (report.found)
        return Exit::found;
    return report.exhausted ? Exit::success : Exit::bound;
}

[[nodiscard]] ordered_json violation_json(const explore::Violation& violation, std::size_t steps) {
    return {{"kind", name(violation.kind)},
            {"text", violation.text},
            {"safety", is_safety(violation.kind)},
            {"steps", steps}};
}

[[nodiscard]] ordered_json to_json(const Scenario& scenario,
                                   const scenarios::Configuration& configuration,
                                   const explore::ExploreOptions& options,
                                   const explore::Report& report, const std::string& claim) {
    ordered_json line;
    line["schema"] = "moat.explore/1";
    line["scenario"] = scenario.name;
    line["variant"] = configuration.contains("variant") ? configuration.at("variant") : "";
    line["configuration"] = scenarios::to_text(configuration);
    line["strategy"] = name(options.strategy);
    line["memory_model"] = name(options.machine.memory_model);
    line["shard"] = std::to_string(options.shard.index) + "/" + std::to_string(options.shard.count);
    line["executions"] = report.tally.executions;
    line["blocked"] = report.tally.blocked;
    line["cut"] = report.tally.cut;
    line["steps"] = report.tally.steps;
    line["symmetry"] = options.machine.symmetry == explore::Symmetry::ordered;
    line["seconds"] = report.seconds;
    line["exhausted"] = report.exhausted;
    line["violation"] = nullptr;
    if (report.found)
        line["violation"] = violation_json(report.found->violation, report.found->schedule.size());
    line["claim"] = claim;
    return line;
}

/// Green for proved, red for refuted, otherwise no colour.
[[nodiscard]] std::string toned_claim(const std::string& claim) {
    for (const auto& [word, tone] : {std::pair("proved", Tone::good), {"refuted", Tone::bad}})
        if (claim.starts_with(word))
            return toned(tone, word) + claim.substr(std::string_view(word).size());
    return claim;
}

/// The bytes that the process has from the C library's allocator. They include freed memory that
/// the library reuses, so an allocation shows only once that is used up.
[[nodiscard]] std::size_t allocated_bytes() {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/// Runs a found schedule once more to print it, and collects stacks, which themselves allocate
/// memory outside the arena.
void run_schedule(explore::Machine& machine, const explore::Found& found,
                  explore::StackRecorder& stacks) {
    if (machine.options().allocated_bytes == nullptr)
        machine.observe(&stacks);
    machine.start();
    for (const explore::Choice& choice : found.schedule)
        machine.step(choice.actor, choice.option);
    if (machine.enabled().empty())
        explore::judge(machine);
    if (!machine.violation())
        machine.report(found.violation);
}

[[nodiscard]] std::string replay_text(const explore::Machine& machine, const Scenario& scenario,
                                      const scenarios::Configuration& configuration) {
    explore::Replay replay = explore::record_replay(machine);
    replay.scenario = scenario.name;
    replay.configuration = scenarios::to_text(configuration);
    return explore::to_text(replay, explore::summary(machine));
}

/// Stops at a program without threads, of which every claim is true.
void require_threads(const std::string& who, const explore::Program& program,
                     const scenarios::Configuration& configuration) {
    explore::Machine machine(program, {});
    machine.start();
    if (machine.threads() == 0 && !machine.violation())
        throw Stop{Exit::usage, who + ": " + scenarios::to_text(configuration) +
                                    ": no thread runs; configure at least one"};
}

struct ScheduleTexts {
    std::string title;
    std::string claim;
    std::string replay; ///< the replay file
};

/// All steps of `machine`, and its violation, as a picture of kind "schedule" (docs/picture.md):
/// threads in the order of their first steps, and each step in words.
[[nodiscard]] ordered_json schedule_picture(const explore::Machine& machine,
                                            const ScheduleTexts& texts) {
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

/// Writes the requested files of a violation. Return: false after reporting one that cannot be
/// written.
[[nodiscard]] bool write_files(const ExploreArguments& arguments, const explore::Machine& machine,
                               const ScheduleTexts& texts) {
    const bool replay = arguments.write_replay.empty() ||
                        write_file("moat explore", arguments.write_replay, texts.replay);
    if (!arguments.pictures.wanted())
        return replay;
    const ordered_json picture = schedule_picture(machine, texts);
    return arguments.pictures.write("moat explore", std::span(&picture, 1)) && replay;
}

Exit run_scenario(const Scenario& scenario, ExploreArguments& arguments) {
    const auto configuration =
        or_stop(scenarios::complete(scenario, arguments.configurations[scenario.name]), Exit::usage,
                "moat explore");
    if (!parse_shard(arguments.shard, arguments.options.shard))
        throw Stop{Exit::usage, "moat explore: --shard: \"" + arguments.shard +
                                    "\" is not I/N with I below N, such as 0/8"};
    const explore::Program program = scenario.program(configuration);
    require_threads("moat explore", program, configuration);
    const auto files = {arguments.write_replay, arguments.pictures.html(),
                        arguments.pictures.trace()};
    require_output("moat explore", files);
    explore::ExploreOptions& options = arguments.options;
    Progress progress(arguments.seconds);
    options.machine.allocated_bytes = &allocated_bytes;
    options.progress = [&](const explore::Tally& tally) {
        const std::string blocked = std::to_string(tally.blocked) + " blocked";
        return progress({.what = scenario.name,
                         .count = tally.executions,
                         .unit = "executions",
                         .fraction = tally.fraction,
                         .remark = blocked});
    };
    const explore::Report report = explore::explore(program, options);
    progress.clear();
    const std::string claim = explore::claim(options, report, scenario.scope(configuration));
    if (arguments.json)
        std::cout << to_json(scenario, configuration, options, report, claim) << '\n';
    bool all_written = true;
    if (report.found) {
        if (report.found->violation.kind != explore::ViolationKind::memory)
            options.machine.allocated_bytes = nullptr;
        explore::Machine machine(program, options.machine);
        explore::StackRecorder stacks(&platform::capture_stack);
        run_schedule(machine, *report.found, stacks);
        if (!arguments.json)
            std::cout << explore::timeline(machine)
                      << explore::stacks_text(machine, stacks, &symbolise)
                      << "schedule: " << explore::summary(machine) << '\n';
        const std::string replay = replay_text(machine, scenario, configuration);
        all_written = write_files(arguments, machine, {scenario.name, claim, replay});
    } else {
        for (const std::string& file : files)
            if (!file.empty())
                std::cerr << "moat explore: " << file
                          << " not written: no violation, so no schedule\n";
    }
    if (!arguments.json)
        std::cout << toned_claim(claim) << '\n';
    return all_written ? exit_of(report) : Exit::bound;
}

[[nodiscard]] ordered_json replay_json(const Scenario& scenario,
                                       const scenarios::Configuration& configuration,
                                       const explore::Machine& machine) {
    ordered_json line;
    line["schema"] = "moat.replay/1";
    line["scenario"] = scenario.name;
    line["configuration"] = scenarios::to_text(configuration);
    line["schedule"] = explore::summary(machine);
    line["steps"] = machine.depth();
    line["violation"] = nullptr;
    if (const auto& violation = machine.violation())
        line["violation"] = violation_json(*violation, machine.depth());
    return line;
}

Exit run_replay(const ExploreArguments& arguments) {
    std::ifstream file(arguments.replay);
    std::stringstream text;
    text << file.rdbuf();
    if (!file)
        throw Stop{Exit::usage, arguments.replay + ": cannot be read"};
    const auto replay = or_stop(explore::parse_replay(text.str()), Exit::usage, arguments.replay);
    const Scenario* const scenario = scenarios::find(replay.scenario);
    if (scenario == nullptr)
        throw Stop{Exit::usage, arguments.replay + ": unknown scenario " + replay.scenario};
    const auto configuration =
        or_stop(scenarios::complete(*scenario, scenarios::parse(replay.configuration)), Exit::usage,
                arguments.replay);
    const explore::Program program = scenario->program(configuration);
    require_threads(arguments.replay, program, configuration);
    explore::Machine machine(program, explore::machine_options(replay));
    explore::StackRecorder stacks(&platform::capture_stack);
    machine.observe(&stacks);
    if (const auto mismatch = explore::follow(machine, replay))
        throw Stop{Exit::bound, arguments.replay + ": " + *mismatch};
    if (arguments.json)
        std::cout << replay_json(*scenario, configuration, machine) << '\n';
    else
        std::cout << explore::timeline(machine)
                  << explore::stacks_text(machine, stacks, &symbolise);
    return machine.violation() ? Exit::found : Exit::success;
}

/// An option whose values are the names of `kinds`.
template <class Kind>
void add_choice(CLI::App& app, const char* option, Kind& value, std::vector<Kind> kinds,
                const char* about) {
    std::vector<std::string> names;
    for (const Kind each : kinds)
        names.emplace_back(name(each));
    const auto choose = [&value, kinds](const std::string& text) {
        value = *std::ranges::find(kinds, text, [](Kind each) { return name(each); });
    };
    app.add_option_function<std::string>(option, choose, about)
        ->check(CLI::IsMember(names))
        ->default_str(std::string(name(value)));
}

void add_options(CLI::App& app, ExploreArguments& arguments) {
    using explore::MemoryModelKind;
    using explore::Strategy;
    explore::ExploreOptions& options = arguments.options;
    add_choice(app, "--strategy", options.strategy,
               {Strategy::dpor, Strategy::sleep, Strategy::naive, Strategy::bound, Strategy::pct,
                Strategy::random},
               "how to choose schedules");
    add_choice(app, "--memory-model", options.machine.memory_model,
               {MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11},
               "what a load may return");
    add_number(app, "--bound", options.preemptions, "most preemptions (strategy bound)")
        ->capture_default_str();
    add_number(app, "--executions", options.random_executions,
               "number of executions (strategies pct, random)", {.least = 1})
        ->capture_default_str();
    add_number(app, "--seed", options.seed, "seed (strategies pct, random)")->capture_default_str();
    add_number(app, "--pct-depth", options.pct_depth, "1 + priority changes (strategy pct)",
               {1, 64})
        ->capture_default_str();
    app.add_flag_callback(
        "--symmetry", [&options] { options.machine.symmetry = explore::Symmetry::ordered; },
        "try only one order of the first steps of identical threads");
    add_number(app, "--most-executions", options.most_executions, "stop after this many",
               {.least = 1});
    add_number(app, "--most-steps", options.machine.most_steps, "most steps of one execution",
               {1, 30000})
        ->capture_default_str();
    add_seconds(app, "--seconds", arguments.seconds, "stop after this long");
    add_number(app, "--failing-allocations", options.machine.failing_allocations,
               "most allocations of one execution that fail")
        ->capture_default_str();
    add_number(app, "--jobs", options.jobs, "threads that explore", {1, 1024})
        ->capture_default_str();
    app.add_option("--shard", arguments.shard, "explore only part I of N, as I/N");
    app.add_option("--write-replay", arguments.write_replay, "write the schedule of a violation")
        ->type_name("FILE");
    arguments.pictures.add_options(app, "write a page that draws a violation's schedule",
                                   "write trace events of a violation's schedule for Perfetto");
    app.add_flag("--json", arguments.json,
                 "print the result as one JSON line (docs/report_schema.md)");
}

/// Rejects options without effect. A preemption bound inside dpor or sleep sets
/// would be unsound: the branch that covers an omitted one could exceed the bound.
void refuse_what_does_not_apply(const CLI::App& command, explore::Strategy strategy) {
    using explore::Strategy;

    struct Rule {
        const char* option;
        std::initializer_list<Strategy> strategies;
        const char* why;
    };

    const Rule rules[] = {
        {"--bound",
         {Strategy::bound},
         "--bound needs --strategy bound: a preemption bound with a reduction is unsound"},
        {"--executions",
         {Strategy::pct, Strategy::random},
         "--executions needs --strategy pct or random; see --most-executions"},
        {"--seed", {Strategy::pct, Strategy::random}, "--seed needs --strategy pct or random"},
        {"--pct-depth", {Strategy::pct}, "--pct-depth needs --strategy pct"},
    };
    for (const Rule& rule : rules)
        if (command.get_option(rule.option)->count() != 0 &&
            std::ranges::find(rule.strategies, strategy) == rule.strategies.end())
            throw CLI::ValidationError(rule.why);
}

void add_scenario(CLI::App& app, const Scenario& scenario, ExploreArguments& arguments,
                  Exit& exit) {
    CLI::App* const command = app.add_subcommand(scenario.name, scenario.summary);
    for (const scenarios::Parameter& parameter : scenario.parameters) {
        scenarios::Configuration& configuration = arguments.configurations[scenario.name];
        CLI::Option* const option = command->add_option_function<std::string>(
            std::string("--") + parameter.name,
            [&configuration, &parameter](const std::string& value) {
                configuration[parameter.name] = value;
            },
            std::string(parameter.help) + " [" + parameter.preset + "]");
        if (parameter.values.empty())
            accept_numbers(*option, {0, parameter.most});
        else
            option->check(CLI::IsMember(parameter.values));
    }
    add_options(*command, arguments);
    command->callback([command, &scenario, &arguments, &exit] {
        refuse_what_does_not_apply(*command, arguments.options.strategy);
        exit = run_scenario(scenario, arguments);
    });
}

} // namespace

void add_explore(CLI::App& app, Exit& exit) {
    static ExploreArguments arguments;
    CLI::App* const command =
        app.add_subcommand("explore", "run an engine under every interleaving of its threads");
    for (const Scenario& scenario : scenarios::all())
        add_scenario(*command, scenario, arguments, exit);
    CLI::Option* const replay =
        command->add_option("--replay", arguments.replay, "replay the schedule in this file")
            ->check(CLI::ExistingFile)
            ->type_name("FILE");
    CLI::Option* const merge =
        command->add_option("--merge", arguments.merge, "add up the --json output of shards")
            ->check(CLI::ExistingFile)
            ->type_name("FILE");
    command->add_flag("--json", arguments.json,
                      "print the result of --replay as one JSON line; --merge always does");
    command->require_subcommand(0, 1);
    describe(
        *command,
        {.paragraphs =
             {"Runs a shipped engine under every interleaving of a few threads, or under a stated "
              "part of them, and prints what the run proves. A violation is printed with its "
              "schedule, step by step, with decoded values and the stale read.",
              "A scenario selects the engine. moat explore SCENARIO --help lists its threads and "
              "its variants, correct and incorrect ones."},
         .examples = {
             {"moat explore pud-slot --variant old", "find the page-walk race of old kernels"},
             {"moat explore pud-slot --faulters 2", "prove moat's own walker"},
             {"moat explore pud-slot --strategy random --executions 1000 --json",
              "try random schedules, which find but do not prove"},
         }});
    command->callback([command, replay, merge, &exit] {
        if (!command->get_subcommands().empty())
            return;
        if (replay->count() != 0)
            exit = run_replay(arguments);
        else if (merge->count() != 0)
            exit = merge_results(arguments.merge);
        else
            throw CLI::CallForHelp();
    });
}

} // namespace moat::tools
