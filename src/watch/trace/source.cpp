// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "source.hpp"

#include "event_setup.hpp"
#include "instance.hpp"
#include "kernel_log.hpp"
#include "pci_devices.hpp"
#include "record_reader.hpp"
#include "ring_reader.hpp"
#include "task_names.hpp"
#include "time_order.hpp"
#include "trace_files.hpp"
#include "watch/guard_module.hpp"

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>
#include <thread>
#include <utility>

namespace moat::watch {

namespace fs = std::filesystem;

using fault::DmaEvent;
using fault::DmaEventSink;

namespace {

constexpr std::chrono::seconds device_interval{1};

/// Settings of an instance before its events are on.
void configure(const TraceInstance& instance, std::size_t buffer_kib) {
    constexpr std::size_t usual_kib = 4096;
    constexpr std::size_t most_kib = 262'144; // of all CPUs
    const std::size_t cpus = std::max(1U, std::thread::hardware_concurrency());
    if (buffer_kib == 0)
        buffer_kib = std::min(usual_kib, most_kib / cpus);
    instance.write("buffer_size_kb", std::to_string(buffer_kib));
    instance.write("trace_clock", "mono");
}

/// Adds a sentence if moat_guard guards devices that are watched.
void name_guards(PciDevices pci, const std::set<std::string, std::less<>>& wanted,
                 const fs::path& root, std::vector<std::string>& sentences) {
    add_guards(pci, root);
    const auto is_guarded = [&](const auto& each) {
        return each.second.guard_bytes != 0 && (wanted.empty() || wanted.contains(each.first));
    };
    if (const auto guarded = std::ranges::count_if(pci, is_guarded); guarded != 0)
        sentences.push_back("moat_guard leaves a guard after new mappings of " +
                            std::to_string(guarded) + (guarded == 1 ? " device" : " devices"));
}

} // namespace

class TraceSource::State {
  public:
    State(fs::path root, TraceInstance instance, EventSetup setup, RingReader rings,
          std::set<std::string, std::less<>> wanted)
        : root_(std::move(root)), instance_(std::move(instance)), setup_(std::move(setup)),
          rings_(std::move(rings)), reader_(setup_.catalog, std::move(wanted)),
          tasks_(root_ / "proc", instance_.tracefs()) {
        if (!setup_.meanings.contains(Meaning::console))
            log_.emplace(root_);
    }

    Result<void> poll(DmaEventSink sink, bool is_last);

    [[nodiscard]] std::vector<int> descriptors() const {
        std::vector<int> numbers = rings_.descriptors();
        if (log_ && log_->descriptor() >= 0)
            numbers.push_back(log_->descriptor());
        return numbers;
    }

    void stop() { instance_.write("tracing_on", "0"); }

    std::vector<std::string> sentences;
    std::vector<std::string> devices;

  private:
    void look_for_devices(DmaEventSink sink);
    void read_log();
    void count_missed_probes();

    fs::path root_;
    TraceInstance instance_; ///< outlives the descriptors of its files
    EventSetup setup_;
    RingReader rings_;
    std::optional<KernelLog> log_;
    TimeOrder order_;
    RecordReader reader_;
    TaskNames tasks_;
    PciDevices pci_;
    std::optional<std::chrono::steady_clock::time_point> looked_;
    std::uint64_t missed_probes_ = 0;
};

Result<void> TraceSource::State::poll(DmaEventSink sink, bool is_last) {
    look_for_devices(sink);
    read_log();
    MOAT_LET(std::uint64_t cut, rings_.read(setup_.catalog, order_));
    count_missed_probes();
    if (is_last)
        cut = ~std::uint64_t{0};
    const auto named = [&](const DmaEvent& event) {
        DmaEvent complete = event;
        complete.task = tasks_.of(event.thread);
        sink(complete);
    };
    const auto pass = [&](const TracedRecord& record) {
        reader_.advance(record.time_ns, named);
        reader_.add(record, named);
    };
    order_.pass(cut, pass);
    is_last ? reader_.end(named) : reader_.advance(cut, named);
    tasks_.forget();
    return {};
}

void TraceSource::State::look_for_devices(DmaEventSink sink) {
    const auto now = std::chrono::steady_clock::now();
    if (looked_ && now - *looked_ < device_interval)
        return;
    looked_ = now;
    PciDevices found = read_pci_devices(root_);
    add_guards(found, root_);
    compare_devices(pci_, found, order_.passed_ns(), sink);
    pci_ = std::move(found);
}

/// The log's times are those of the clocks "local" and "global".
void TraceSource::State::read_log() {
    if (!log_)
        return;
    const bool shares_clock = rings_.clock() == "local" || rings_.clock() == "global";
    while (auto line = log_->next())
        order_.add({.time_ns = shares_clock ? line->time_ns : rings_.now_ns(),
                    .cpu = rings_.cpus(),
                    .line = std::move(line->text)});
}

void TraceSource::State::count_missed_probes() {
    if (!setup_.has_kprobes)
        return;
    const std::uint64_t missed = instance_.missed_kprobes();
    if (missed > missed_probes_)
        order_.add(
            {.time_ns = rings_.now_ns(), .cpu = rings_.cpus(), .lost = missed - missed_probes_});
    missed_probes_ = missed;
}

TraceSource::TraceSource(std::unique_ptr<State> state) : state_(std::move(state)) {}

TraceSource::TraceSource(TraceSource&&) noexcept = default;
TraceSource& TraceSource::operator=(TraceSource&&) noexcept = default;
TraceSource::~TraceSource() = default;

std::expected<TraceSource, std::string> TraceSource::begin(const SourceOptions& options) {
    const fs::path& root = options.root;
    MOAT_LET(const fs::path tracefs, find_tracefs(root));
    const std::vector<std::string> dead = remove_dead(root, tracefs);
    const PciDevices pci = read_pci_devices(root);
    MOAT_LET(std::vector<std::string> devices, select_devices(pci, options.devices));
    const auto wanted = with_group_mates(pci, devices);

    const bool is_own = options.instance.empty();
    MOAT_LET(TraceInstance instance, is_own ? TraceInstance::create(root, tracefs)
                                            : TraceInstance::attach(tracefs, options.instance));
    if (is_own)
        configure(instance, options.buffer_kib);
    MOAT_LET(EventSetup setup,
             is_own ? switch_on(instance, wanted, options.stacks) : find_events(instance));
    const PageLayout layout =
        with_page_size(parse_page_layout(read_file(tracefs / "events/header_page").value_or("")),
                       read_line(instance.folder() / "buffer_subbuf_size_kb"));
    MOAT_LET(RingReader rings, RingReader::open(instance.folder(), layout));

    std::vector<std::string> sentences = {"Linux " + read_line(root / "proc/sys/kernel/osrelease")};
    std::ranges::move(setup.sentences, std::back_inserter(sentences));
    if (rings.clock() == "local")
        sentences.emplace_back(
            "the clock \"local\" of the instance may order CPUs' events wrongly");
    name_guards(pci, wanted, root, sentences);
    for (const std::string& each : dead)
        sentences.push_back("removed what process " + each + " left behind");
    instance.write("tracing_on", "1");
    auto state = std::make_unique<State>(root, std::move(instance), std::move(setup),
                                         std::move(rings), wanted);
    state->sentences = std::move(sentences);
    state->devices = std::move(devices);
    return TraceSource(std::move(state));
}

std::vector<std::string> TraceSource::sources() const {
    return state_->sentences;
}

const std::vector<std::string>& TraceSource::devices() const {
    return state_->devices;
}

std::vector<int> TraceSource::descriptors() const {
    return state_->descriptors();
}

Result<void> TraceSource::poll(DmaEventSink sink) {
    return state_->poll(sink, false);
}

Result<void> TraceSource::finish(DmaEventSink sink) {
    state_->stop();
    return state_->poll(sink, true);
}

} // namespace moat::watch
