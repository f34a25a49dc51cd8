// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// --trace FILE: the "Trace Event Format" of the Chromium project. Mappings may overlap, so they are
// nestable asynchronous events ("b", "e"), a row each; sequential actions of a thread or a device
// are complete events ("X").
#include "command/picture/picture.hpp"

#include "moat/core/text.hpp"

#include "command/picture/picture_page.hpp"
#include "command/terminal/output.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using nlohmann::ordered_json;

/// Indices into an element of `mappings`.
namespace mapping {
constexpr std::size_t start = 0, bytes = 1, mapped = 4, unmapped = 5, label = 7, mapped_by = 9,
                      number = 10;
} // namespace mapping

/// Rows of a device.
constexpr int operations_row = 1, faults_row = 2, mappings_row = 3;

/// The format counts microseconds.
[[nodiscard]] double microseconds(std::int64_t nanoseconds) {
    return static_cast<double>(nanoseconds) / 1000;
}

class Trace {
  public:
    void add(int process, const ordered_json& picture) {
        const bool is_space = picture["kind"] == "space";
        name("process_name", process, 0, picture["title"]);
        if (is_space)
            add_space(process, picture);
        else
            add_schedule(process, picture);
    }

    [[nodiscard]] ordered_json take() {
        ordered_json trace;
        trace["displayTimeUnit"] = "ns";
        trace["traceEvents"] = std::move(names_);
        for (auto& [time, event] : events_)
            trace["traceEvents"].push_back(std::move(event));
        return trace;
    }

  private:
    void name(const char* what, int process, int row, const ordered_json& text) {
        names_.push_back({{"ph", "M"},
                          {"name", what},
                          {"pid", process},
                          {"tid", row},
                          {"args", {{"name", text}}}});
    }

    ordered_json& event(const char* phase, const char* category, const ordered_json& text,
                        int process, int row, double time) {
        const ordered_json made = {{"ph", phase},    {"cat", category}, {"name", text},
                                   {"pid", process}, {"tid", row},      {"ts", time}};
        return events_.emplace(time, made)->second;
    }

    void add_space(int process, const ordered_json& picture) {
        name("thread_name", process, operations_row, "operations");
        name("thread_name", process, faults_row, "faults");
        name("thread_name", process, mappings_row, "mappings");
        add_operations(process, picture);
        for (const ordered_json& each : picture["mappings"])
            add_mapping(process, picture, each);
        for (const ordered_json& fault : picture["faults"]) {
            ordered_json& mark = event("i", "fault", fault["access"].get<std::string>() + " fault",
                                       process, faults_row, microseconds(fault["time"]));
            mark["s"] = "t";
            mark["args"] = {{"iova", fault["address"]},
                            {"bytes", fault["size"]},
                            {"device", fault["device"]},
                            {"report", fault["report"]}};
        }
    }

    /// From the first mapping of a case to the last unmapping of its buffers.
    void add_operations(int process, const ordered_json& picture) {
        struct Operation {
            std::int64_t begin;
            std::int64_t end;
            std::size_t name; // of the picture's strings
        };

        std::map<std::int64_t, Operation> operations; // by case
        for (const ordered_json& each : picture["mappings"]) {
            const std::int64_t number = each[mapping::number];
            const std::int64_t begin = each[mapping::mapped];
            const std::int64_t end = each[mapping::unmapped];
            if (number < 0 || end < 0)
                continue; // a buffer that the driver keeps
            auto& operation =
                operations.try_emplace(number, Operation{begin, end, each[mapping::mapped_by]})
                    .first->second;
            operation.begin = std::min(operation.begin, begin);
            operation.end = std::max(operation.end, end);
        }
        for (const auto& [number, operation] : operations) {
            ordered_json& made = event("X", "operation", picture["strings"][operation.name],
                                       process, operations_row, microseconds(operation.begin));
            made["dur"] = microseconds(operation.end - operation.begin);
            made["args"] = {{"case", number}};
        }
    }

    void add_mapping(int process, const ordered_json& picture, const ordered_json& each) {
        const ordered_json& label = picture["strings"][each[mapping::label].get<std::size_t>()];
        const std::string id = hexadecimal(++mappings_);
        const bool is_unmapped = each[mapping::unmapped].get<std::int64_t>() >= 0;
        ordered_json& begin = event("b", "mapping", label, process, mappings_row,
                                    microseconds(each[mapping::mapped]));
        begin["id"] = id;
        begin["args"] = {{"iova", each[mapping::start]},
                         {"bytes", each[mapping::bytes]},
                         {"label", label},
                         {"unmapped", is_unmapped}};
        event("e", "mapping", label, process, mappings_row,
              microseconds(is_unmapped ? each[mapping::unmapped] : picture["end"]))["id"] = id;
    }

    /// A step a microsecond; the stale read is a flow from its cause to its use.
    void add_schedule(int process, const ordered_json& picture) {
        int row = 0;
        for (const ordered_json& thread : picture["threads"])
            name("thread_name", process, ++row, thread);
        const ordered_json& steps = picture["steps"];
        const auto row_of = [&](std::size_t step) { return steps[step]["thread"].get<int>() + 1; };
        for (std::size_t at = 0; at != steps.size(); ++at) {
            ordered_json& step =
                event("X", "step", steps[at]["text"], process, row_of(at), static_cast<double>(at));
            step["dur"] = 1;
            step["args"] = {{"step", at}};
        }
        if (const ordered_json& stale = picture["stale"]; !stale.is_null()) {
            const std::size_t changed = stale["changed"], looked = stale["looked"];
            const auto flow = [&](const char* phase, std::size_t at) -> ordered_json& {
                ordered_json& end = event(phase, "stale read", "made stale", process, row_of(at),
                                          static_cast<double>(at) + 0.5);
                end["id"] = "stale";
                return end;
            };
            flow("s", changed);
            flow("f", looked)["bp"] = "e";
        }
        if (const ordered_json& violation = picture["violation"];
            !violation.is_null() && !steps.empty()) {
            ordered_json& mark = event("i", "violation", violation["kind"], process,
                                       row_of(steps.size() - 1), static_cast<double>(steps.size()));
            mark["s"] = "p";
            mark["args"] = {{"thread", violation["thread"]}, {"text", violation["text"]}};
        }
    }

    ordered_json names_ = ordered_json::array();
    std::multimap<double, ordered_json> events_; ///< by their times
    std::uint64_t mappings_ = 0;
};

/// The events of `pictures`, a process each, in the order of their times.
[[nodiscard]] ordered_json trace_events(std::span<const ordered_json> pictures) {
    Trace trace;
    int process = 0;
    for (const ordered_json& picture : pictures)
        trace.add(++process, picture);
    return trace.take();
}

[[nodiscard]] std::string html_page([[maybe_unused]] const ordered_json& data) {
    std::string page;
#ifdef MOAT_HAS_PICTURE
    page = picture_before_data;
    for (const char c : text_of(data)) // escapes "<", so that no data ends the script element
        page += c == '<' ? "\\u003c" : std::string(1, c);
    page += picture_after_data;
#endif
    return page;
}

} // namespace

void PictureFiles::add_options(CLI::App& command, [[maybe_unused]] const std::string& about_html,
                               const std::string& about_trace) {
#ifdef MOAT_HAS_PICTURE
    command.add_option("--html", html_, about_html)->type_name("FILE");
#endif
    command.add_option("--trace", trace_, about_trace)->type_name("FILE");
}

bool PictureFiles::write(const char* who, std::span<const ordered_json> pictures) const {
    if (pictures.empty())
        return true;
    const bool page = html_.empty() || write_file(who, html_, html_page(pictures.front()));
    return (trace_.empty() || write_file(who, trace_, text_of(trace_events(pictures)) + '\n')) &&
           page;
}

} // namespace moat::tools
