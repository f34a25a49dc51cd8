// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat explain`: reads a kernel log and answers what happened, whether it matters and what to do.
// If the log also holds tracefs events of mappings, it diagnoses each fault against them.
#include "moat/core/text.hpp"
#include "moat/fault/decode.hpp"
#include "moat/fault/report.hpp"

#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "command/terminal/terminal.hpp"
#include "command/this_host.hpp"
#include "command/traced_mappings.hpp"
#include "fault/answer.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <vector>

namespace moat::tools {

namespace {

using fault::LogEvent;
using fault::LogGroup;

struct ExplainArguments {
    std::vector<std::string> files;
    bool json = false;
    bool here = false;
};

/// Reads lines; collects the answer.
class Explainer {
  public:
    explicit Explainer(const ExplainArguments& arguments) : json_(arguments.json) {
        if (arguments.here)
            add_this_host(context_);
    }

    void line(std::string_view line) {
        const auto sink = [this](const LogEvent& event) { add(event); };
        context_.line(line);
        decoder_.line(line, sink);
    }

    void end_of_file() {
        const auto sink = [this](const LogEvent& event) { add(event); };
        decoder_.end(sink);
    }

    /// Prints the answer.
    void conclude() const {
        for (const LogGroup* const group : worst_first())
            std::cout << (json_ ? fault::json_answer(*group, context_) + '\n'
                                : fault::text_answer(*group, context_, output_colour()) + '\n');
        if (!json_)
            print_summary();
    }

    [[nodiscard]] Exit exit() const {
        if (!groups_.all().empty() || diagnosed_ != 0)
            return Exit::found;
        return decoder_.counts().unknown == 0 && details_ == 0 ? Exit::success : Exit::bound;
    }

  private:
    void add(const LogEvent& event) {
        context_.event(event);
        details_ += event.kind == LogEvent::Kind::detail ? 1 : 0;
        mappings_.add(event);
        if (mappings_.knows(event))
            print_diagnosis(event);
        else
            groups_.add(event);
    }

    void print_diagnosis(const LogEvent& event) {
        ++diagnosed_;
        const fault::Diagnosis diagnosis = mappings_.diagnose(event.record);
        if (json_) {
            fault::ReportOptions options;
            if (event.device != to_string(event.record.source))
                options.device = event.device;
            std::cout << fault::json_report(diagnosis, options) << '\n';
            return;
        }
        const std::string report = fault::text_report(diagnosis, {.colour = output_colour()});
        if (printed_.insert(report.substr(std::min(report.find("SUMMARY"), report.size()))).second)
            std::cout << report << '\n';
    }

    [[nodiscard]] std::vector<const LogGroup*> worst_first() const {
        std::vector<const LogGroup*> groups;
        for (const LogGroup& group : groups_.all())
            groups.push_back(&group);
        const auto before = [this](const LogGroup* one, const LogGroup* other) {
            const auto verdict = fault::likeliest_cause(*one, context_).verdict;
            const auto other_verdict = fault::likeliest_cause(*other, context_).verdict;
            return verdict != other_verdict ? verdict > other_verdict : one < other;
        };
        std::ranges::sort(groups, before); // groups lie in the order of their first events
        return groups;
    }

    void print_summary() const {
        std::uint64_t events = diagnosed_;
        for (const LogGroup& group : groups_.all())
            events += group.count;
        const std::size_t problems = groups_.all().size() + printed_.size();
        if (problems == 0)
            std::cout << "No problem found in " << counted(decoder_.counts().lines, "line")
                      << ".\n";
        else
            std::cout << counted(problems, "problem") << " in " << counted(events, "report")
                      << '\n';
        if (problems == 0 && details_ != 0)
            std::cout << counted(details_, "line") << (details_ == 1 ? " belongs" : " belong")
                      << " to a fault whose own line, with device and address, is missing; look at"
                         " the lines around: dmesg | grep -i -A 3 -e dmar -e iommu -e smmu\n";
        if (groups_.suppressed() != 0)
            std::cout << "The kernel suppressed " << fault::with_commas(groups_.suppressed())
                      << " more lines, of which the log does not name the device.\n";
        if (groups_.left_out() != 0)
            std::cout << fault::with_commas(groups_.left_out())
                      << " reports of further devices are not shown.\n";
        const fault::LogCounts& counts = decoder_.counts();
        if (counts.unknown != 0)
            std::cout << counted(counts.unknown, "line")
                      << (counts.unknown == 1 ? " names an IOMMU and was"
                                              : " name an IOMMU and were")
                      << " not understood; the first: " << counts.first_unknown_number << ": "
                      << fault::printable(counts.first_unknown) << '\n';
    }

    bool json_;
    fault::Decoder decoder_;
    fault::LogContext context_;
    fault::LogGroups groups_;
    TracedMappings mappings_;
    std::set<std::string> printed_;
    std::uint64_t diagnosed_ = 0;
    std::uint64_t details_ = 0; ///< lines that belong to a fault
};

[[nodiscard]] bool read(std::istream& in, Explainer& explainer) {
    for (std::string line; output_works() && std::getline(in, line);)
        explainer.line(line);
    explainer.end_of_file();
    // A folder opens, but reading it fails; only C's standard input reports errors.
    return !in.bad() && !(&in == &std::cin && std::ferror(stdin) != 0);
}

[[nodiscard]] bool read(const std::string& file, Explainer& explainer) {
    if (file == "-")
        return read(std::cin, explainer);
    std::ifstream in(file);
    return in && read(in, explainer);
}

Exit run(const ExplainArguments& arguments) {
    Explainer explainer(arguments);
    if (arguments.here && arguments.files.empty()) {
        std::istringstream in(or_stop(kernel_log(), Exit::bound, "moat explain"));
        static_cast<void>(read(in, explainer));
    }
    const std::vector<std::string> standard_input = {"-"};
    for (const std::string& file :
         arguments.files.empty() && !arguments.here ? standard_input : arguments.files)
        if (!read(file, explainer)) {
            std::cerr << "moat explain: cannot read " << (file == "-" ? "standard input" : file)
                      << "; give files, or - for standard input\n";
            return Exit::usage;
        }
    explainer.conclude();
    return explainer.exit();
}

} // namespace

void add_explain(CLI::App& app, Exit& exit) {
    static ExplainArguments arguments;
    CLI::App* const command =
        app.add_subcommand("explain", "explain the IOMMU faults of a kernel log");
    command
        ->add_option("files", arguments.files,
                     "logs, and listings of their host (lspci -nnk, /proc/iomem); standard input "
                     "if none, - too")
        ->type_name("FILE");
    command->add_flag("--here", arguments.here,
                      "use this host's devices and addresses, and its kernel's log if no FILE "
                      "is given");
    command->add_flag("--json", arguments.json,
                      "print one JSON line per problem (docs/report_schema.md)");
    command->footer("If a file also holds trace events (iommu:*, dma:*), each report names the "
                    "mapping.");
    describe(
        *command,
        {.paragraphs =
             {"Reads a kernel log and answers for each problem of an IOMMU or of DMA: what "
              "happened and how often, whether it may be ignored, the likeliest cause, what to "
              "look at next, and which setting helps at what cost. It understands the messages "
              "of Linux's IOMMU drivers, VFIO and DMA checks, of Xen and the BSDs, and of "
              "QEMU, DPDK and SPDK, also if mail or a terminal wrapped them.",
              "Lines that name an IOMMU and are not understood are counted. The exit status is 3 "
              "if there is nothing else.",
              "If the log also holds trace events of mappings (iommu:*, dma:*), moat diagnoses "
              "each fault against them: which buffer, how far outside, or when it was unmapped."},
         .examples = {{"moat explain tests/fault/data/intel-6.12.117-type1.txt",
                       "a log of Linux 6.12 with four faults"},
                      {"dmesg | moat explain", "the log of this host"},
                      {"moat explain --json tests/fault/data/intel-6.12.117-type1.txt",
                       "print one JSON line per problem"}}});
    command->callback([&exit] { exit = run(arguments); });
}

} // namespace moat::tools
