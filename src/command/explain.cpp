// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat explain`: reads a kernel log, explains its fault lines, and names what to check.
// If the log also holds tracefs events of mappings, it diagnoses each fault against them.
#include "moat/fault/explain.hpp"

#include "moat/fault/decode.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/history.hpp"
#include "moat/fault/report.hpp"
#include "moat/fault/text.hpp"

#include "help.hpp"
#include "output.hpp"
#include "subcommands.hpp"
#include "terminal.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <vector>

namespace moat::tools {

namespace {

using fault::LogEvent;
using fault::Mapping;

struct Arguments {
    std::string file = "-";
    bool json = false;
};

/// The mappings from tracefs events so far. Events of the iommu system name no device, so this
/// cannot distinguish domains: a mapping that overlaps another replaces it.
class TracedMappings {
  public:
    void map(const LogEvent& decoded) {
        Mapping mapping = decoded.mapping;
        const std::uint64_t start = mapping.range.start().value();
        if (const auto same = live_.find(start); same != live_.end() && decoded.device.empty())
            return; // the dma system's event told more
        mapping.label = *labels_.insert(decoded.device).first;
        erase_overlapping(mapping.range);
        live_.emplace(start, mapping);
        any_ = true;
    }

    void unmap(const LogEvent& decoded) {
        const fault::Event unmapped = decoded.mapping.mapped;
        for (const Mapping& gone : erase_overlapping(decoded.mapping.range))
            history_.note(gone, unmapped);
        any_ = true;
    }

    [[nodiscard]] bool any() const { return any_; }

    [[nodiscard]] fault::Diagnosis diagnose(const fault::Record& record) {
        std::vector<Mapping> sorted;
        for (const auto& [start, mapping] : live_)
            sorted.push_back(mapping);
        history_.catch_up();
        return fault::diagnose(fault::SortedMappings(sorted), history_, record);
    }

  private:
    std::vector<Mapping> erase_overlapping(IovaRange range) {
        std::vector<Mapping> gone;
        auto at = live_.upper_bound(range.start().value());
        if (at != live_.begin())
            --at;
        while (at != live_.end() && at->second.range.start() <= range.last()) {
            if (!at->second.range.overlaps(range)) {
                ++at;
                continue;
            }
            gone.push_back(at->second);
            at = live_.erase(at);
        }
        return gone;
    }

    std::map<std::uint64_t, Mapping> live_;
    fault::History history_{1U << 20};
    std::set<std::string> labels_;
    bool any_ = false;
};

/// Replaces control characters, so that no text of a log controls the terminal.
[[nodiscard]] std::string printable(std::string text) {
    for (char& each : text)
        if (static_cast<unsigned char>(each) < 0x20 || each == 0x7f)
            each = '?';
    return text;
}

/// Prints the decoder's results; counts a repeated fault instead of explaining it again.
class Explainer {
  public:
    explicit Explainer(const Arguments& arguments) : arguments_(arguments) {}

    void operator()(const LogEvent& decoded) {
        switch (decoded.kind) {
        case LogEvent::Kind::mapped:
            return mappings_.map(decoded);
        case LogEvent::Kind::unmapped:
            return mappings_.unmap(decoded);
        default:
            break;
        }
        if (!is_problem(decoded.kind) && decoded.kind != LogEvent::Kind::suppressed)
            return;
        ++found_;
        if (arguments_.json)
            print_json(decoded);
        else
            print_text(decoded);
    }

    [[nodiscard]] std::uint64_t found() const { return found_; }

    /// Prints the summary at the end of the log. Not for JSON.
    void conclude() const {
        if (!look_at_.empty())
            std::cout << "\nWhat to check:\n";
        for (const std::string& thing : look_at_)
            std::cout << "  - " << thing << '\n';
        std::cout << (found_ == 0 ? "" : "\n") << found_
                  << (found_ == 1 ? " fault report" : " fault reports");
        if (repeated_ != 0)
            std::cout << ", " << repeated_ << (repeated_ == 1 ? " duplicate" : " duplicates");
        std::cout << '\n';
    }

  private:
    [[nodiscard]] bool can_diagnose(const LogEvent& decoded) const {
        return decoded.kind == LogEvent::Kind::fault && mappings_.any() &&
               decoded.record.precision != fault::Precision::none;
    }

    void print_json(const LogEvent& decoded) {
        if (can_diagnose(decoded)) {
            fault::ReportOptions options;
            options.device = decoded.device;
            std::cout << fault::json_report(mappings_.diagnose(decoded.record), options) << '\n';
        } else {
            std::cout << fault::json_report(decoded) << '\n';
        }
    }

    void print_text(const LogEvent& decoded) {
        const fault::Explanation explanation = fault::explain(decoded);
        std::string report;
        if (can_diagnose(decoded))
            report =
                fault::text_report(mappings_.diagnose(decoded.record), {.colour = output_colour()});
        const std::size_t last_line = std::min(report.find("SUMMARY"), report.size());
        if (!said_.insert(explanation.happened + report.substr(last_line)).second) {
            ++repeated_;
            return;
        }
        std::cout << toned(Tone::strong, explanation.happened)
                  << "\n  reported by: " << name(decoded.origin);
        if (!decoded.device.empty())
            std::cout << ", device " << printable(decoded.device);
        if (!decoded.text.empty())
            std::cout << ": \"" << printable(decoded.text) << '"';
        std::cout << '\n' << report;
        if (!report.empty())
            return;
        for (const std::string& thing : explanation.look_at)
            if (std::ranges::find(look_at_, thing) == look_at_.end())
                look_at_.push_back(thing);
    }

    const Arguments& arguments_;
    TracedMappings mappings_;
    std::set<std::string> said_;
    std::vector<std::string> look_at_;
    std::uint64_t found_ = 0;
    std::uint64_t repeated_ = 0;
};

[[nodiscard]] Exit cannot_read(const Arguments& arguments) {
    std::cerr << "moat explain: cannot read "
              << (arguments.file == "-" ? "standard input" : arguments.file)
              << "; give a file, or - for standard input\n";
    return Exit::usage;
}

/// Lines that name an IOMMU and are unknown: a log with them is not known to be clean.
void report_unknown(const fault::LogCounts& counts) {
    if (counts.unknown == 0)
        return;
    std::cerr << "moat explain: "
              << (counts.unknown == 1
                      ? "1 line names an IOMMU and was not understood: "
                      : std::to_string(counts.unknown) +
                            " lines name an IOMMU and were not understood; the first: ")
              << "line " << counts.first_unknown_number << ": " << printable(counts.first_unknown)
              << '\n';
}

Exit run(const Arguments& arguments) {
    std::ifstream file;
    if (arguments.file != "-") {
        file.open(arguments.file);
        if (!file)
            return cannot_read(arguments);
    }
    std::istream& in = arguments.file == "-" ? std::cin : file;
    Explainer explainer(arguments);
    fault::Decoder decoder;
    for (std::string line; output_works() && std::getline(in, line);)
        decoder.line(line, explainer);
    // A folder opens, but reading it fails; only C's standard input reports errors.
    if (in.bad() || (&in == &std::cin && std::ferror(stdin) != 0))
        return cannot_read(arguments);
    decoder.end(explainer);
    if (!arguments.json)
        explainer.conclude();
    report_unknown(decoder.counts());
    if (explainer.found() != 0)
        return Exit::found;
    return decoder.counts().unknown == 0 ? Exit::success : Exit::bound;
}

} // namespace

void add_explain(CLI::App& app, Exit& exit) {
    static Arguments arguments;
    CLI::App* const command =
        app.add_subcommand("explain", "explain the IOMMU faults of a kernel log");
    command->add_option("file", arguments.file, "a log, or - for standard input")
        ->type_name("FILE")
        ->capture_default_str();
    command->add_flag("--json", arguments.json,
                      "print one JSON line per fault (docs/report_schema.md)");
    command->footer("If the file also holds trace events (iommu:*, dma:*), each report names the "
                    "mapping.");
    describe(
        *command,
        {.paragraphs = {"Reads a kernel log and prints, for each IOMMU fault, what happened and "
                        "what to check. It decodes the lines of the Intel, AMD, Arm, RISC-V and "
                        "virtio IOMMU drivers, of QEMU and of VFIO.",
                        "If the log also holds trace events of mappings (iommu:*, dma:*), moat "
                        "diagnoses each fault against them: which buffer, how far outside, or "
                        "when it was unmapped."},
         .examples = {{"moat explain tests/fault/data/intel-6.12.117-type1.txt",
                       "a log of Linux 6.12 with four faults"},
                      {"dmesg | moat explain", "the log of this host"},
                      {"moat explain --json tests/fault/data/intel-6.12.117-type1.txt",
                       "print one JSON line per fault"}}});
    command->callback([&exit] { exit = run(arguments); });
}

} // namespace moat::tools
