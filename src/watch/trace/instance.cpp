// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "instance.hpp"

#include "event_catalog.hpp"
#include "trace_files.hpp"

#include <algorithm>
#include <cerrno>
#include <set>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

namespace moat::watch {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view instance_prefix = "moat-";

/// Events that are on keep an instance and their probes alive. Errors have no remedy here.
void remove_instance(const fs::path& folder) {
    static_cast<void>(write_file(folder / "tracing_on", "0"));
    static_cast<void>(write_file(folder / "events/enable", "0"));
    ::rmdir(folder.c_str());
}

/// The lines of dynamic_events are "f:GROUP/NAME ..." or "r16:GROUP/NAME ...".
void remove_probes(const fs::path& tracefs, std::string_view group) {
    std::istringstream lines(read_file(tracefs / "dynamic_events").value_or(""));
    std::set<std::string> names; // a name is removed with all its probes
    std::string line;
    while (std::getline(lines, line)) {
        const std::string_view text = line;
        const std::size_t start = std::min(text.find(':'), text.size() - 1) + 1;
        const std::string_view event = text.substr(start, text.find(' ') - start);
        if (event.starts_with(group) && event.substr(group.size()).starts_with('/'))
            names.emplace(event);
    }
    for (const std::string& each : names)
        static_cast<void>(write_file(tracefs / "dynamic_events", "-:" + each + "\n"));
}

/// The number behind `prefix`, if `name` is nothing else.
std::string number_behind_prefix(std::string_view name, std::string_view prefix) {
    if (!name.starts_with(prefix))
        return {};
    const std::string_view digits = name.substr(prefix.size());
    return std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; })
               ? std::string(digits)
               : std::string();
}

} // namespace

std::expected<TraceInstance, std::string> TraceInstance::create(const fs::path& root,
                                                                const fs::path& tracefs) {
    const std::string number = std::to_string(::getpid());
    fs::path folder = tracefs / "instances" / (std::string(instance_prefix) + number);
    if (::mkdir(folder.c_str(), 0700) != 0)
        return std::unexpected(refusal(root, "cannot create " + folder.string(), errno));
    TraceInstance created(tracefs, std::move(folder), std::string(probe_group) + number);
    created.write("tracing_on", "0");
    return created;
}

std::expected<TraceInstance, std::string> TraceInstance::attach(const fs::path& tracefs,
                                                                const std::string& name) {
    const fs::path folder = tracefs / "instances" / name;
    const auto names = names_in(tracefs / "instances");
    if (std::ranges::find(names, name) != names.end())
        return TraceInstance(tracefs, folder, {});
    std::string known;
    for (const std::string& each : names)
        known += (known.empty() ? "" : ", ") + each;
    return std::unexpected("no tracefs instance \"" + name +
                           "\"; instances: " + (known.empty() ? "none" : known) +
                           "; boot with trace_instance=" + name + ",dma:*,printk:console");
}

TraceInstance::~TraceInstance() {
    if (!is_own())
        return;
    remove_instance(folder_);
    remove_probes(tracefs_, group_);
}

int TraceInstance::write(const fs::path& file, std::string_view text) const {
    return is_own() ? write_file(folder_ / file, text) : EPERM;
}

bool TraceInstance::add_probe(std::string_view kind, std::string_view name,
                              std::string_view where) const {
    const std::string line = std::string(kind) + ':' + group_ + '/' + std::string(name) + ' ' +
                             std::string(where) + '\n';
    return is_own() && write_file(tracefs_ / "dynamic_events", line) == 0;
}

/// Lines such as "  alloc   1234   5": a probe's name without its group, hits, misses.
std::uint64_t TraceInstance::missed_kprobes() const {
    std::istringstream lines(read_file(tracefs_ / "kprobe_profile").value_or(""));
    std::uint64_t all = 0;
    std::string name;
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;
    while (lines >> name >> hits >> misses)
        if (name == "alloc_call" || name == "alloc" || name == "free")
            all += misses;
    return all;
}

std::vector<std::string> remove_dead(const fs::path& root, const fs::path& tracefs) {
    std::set<std::string> numbers;
    for (const std::string& name : names_in(tracefs / "instances"))
        numbers.insert(number_behind_prefix(name, instance_prefix));
    for (const std::string& name : names_in(tracefs / "events"))
        numbers.insert(number_behind_prefix(name, probe_group));
    numbers.erase("");
    std::vector<std::string> dead;
    std::error_code error;
    for (const std::string& number : numbers) {
        if (fs::exists(root / "proc" / number, error))
            continue;
        remove_instance(tracefs / "instances" / (std::string(instance_prefix) + number));
        remove_probes(tracefs, std::string(probe_group) + number);
        dead.push_back(number);
    }
    return dead;
}

} // namespace moat::watch
