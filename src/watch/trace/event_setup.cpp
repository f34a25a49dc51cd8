// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "event_setup.hpp"

#include "trace_files.hpp"

#include <string_view>
#include <utility>

namespace moat::watch {

namespace fs = std::filesystem;

namespace {

/// `device == "a" || device == "b"`
std::string filter_of(std::string_view field, const std::set<std::string, std::less<>>& devices) {
    std::string filter;
    for (const std::string& each : devices)
        filter += (filter.empty() ? "" : " || ") + std::string(field) + " == \"" + each + '"';
    return filter;
}

/// What was switched on, by kinds.
struct Enabled {
    std::string mappings = {};
    bool iova_probes = false;
    bool filters = true;
};

class Setup {
  public:
    Setup(const TraceInstance& instance, const std::set<std::string, std::less<>>& devices,
          bool stacks)
        : instance_(instance), devices_(devices), stacks_(stacks) {
        add_format("ftrace", "kernel_stack");
    }

    /// Adds an event's format to the catalog. Return: its meaning, if moat uses the event.
    std::optional<Meaning> add_format(const std::string& system, const std::string& name) {
        const auto text = read_file(instance_.tracefs() / "events" / system / name / "format");
        const auto format = text ? parse_event_format(*text) : std::nullopt;
        const auto meaning = format ? meaning_of(system, *format) : std::nullopt;
        if (meaning)
            made.catalog.add(system, *text);
        return meaning;
    }

    /// Adds an event and switches it on with its filter and stack trigger. Return: whether it is
    /// on.
    bool enable(const std::string& system, const std::string& name) {
        const auto meaning = add_format(system, name);
        if (!meaning)
            return false;
        const fs::path folder = fs::path("events") / system / name;
        const bool names_device = *meaning == Meaning::map || *meaning == Meaning::map_list ||
                                  *meaning == Meaning::unmap || *meaning == Meaning::unmap_list ||
                                  *meaning == Meaning::allocate_call;
        if (names_device && !devices_.empty() &&
            instance_.write(folder / "filter", filter_of("device", devices_)) != 0)
            enabled.filters = false;
        const bool has_stack =
            *meaning == Meaning::map || *meaning == Meaning::map_list ||
            *meaning == Meaning::allocate_call ||
            (*meaning == Meaning::allocate && !made.meanings.contains(Meaning::allocate_call));
        if (stacks_ && has_stack && instance_.write(folder / "trigger", "stacktrace") == 0)
            made.has_stacks = true;
        if (instance_.write(folder / "enable", "1") != 0)
            return false;
        made.meanings.insert(*meaning);
        return true;
    }

    void enable_dma() {
        for (const std::string& name : names_in(instance_.tracefs() / "events/dma"))
            if (enable("dma", name))
                enabled.mappings += (enabled.mappings.empty() ? "" : ", ") + name;
    }

    /// fprobes read arguments by their names in BTF; kprobes by their places.
    void enable_iova_probes() {
        const auto probe = [&](std::string_view kind, const std::string& name,
                               std::string_view where) {
            return instance_.add_probe(kind, name, where) && enable(instance_.group(), name);
        };
        constexpr std::string_view fields =
            "device=dev->kobj.name:string size=size:u64 r=$retval:x64";
        const std::string by_name = "iommu_dma_alloc_iova%return ";
        const bool allocates =
            probe("f", "alloc",
                  by_name + "cookie=domain->iova_cookie:x64 " + std::string(fields)) ||
            probe("f", "alloc", by_name + std::string(fields)) ||
            (probe("p", "alloc_call",
                   "iommu_dma_alloc_iova device=+0(+0($arg4)):string size=$arg2:u64") &&
             probe("r", "alloc", "iommu_dma_alloc_iova r=$retval:x64"));
        const bool frees =
            probe("f", "free", "free_iova_fast iovad=iovad:x64 pfn=pfn:u64 size=size:u64") ||
            probe("p", "free", "free_iova_fast iovad=$arg1:x64 pfn=$arg2:u64 size=$arg3:u64");
        enabled.iova_probes = allocates && frees;
    }

    /// Linux 6.16 and later map by an API without events; before 6.12 nothing has events. A probe
    /// that the kernel accepts has its function; it stays off.
    bool needs_iova_probes() {
        return enabled.mappings.empty() ||
               instance_.add_probe("f", "iova_api", "dma_iova_try_alloc") ||
               instance_.add_probe("p", "iova_api", "dma_iova_try_alloc");
    }

    void enable_faults() {
        enable("printk", "console");
        enable("iommu", "io_page_fault");
        enable("swiotlb", "swiotlb_bounced");
        if (instance_.add_probe("f", "fault", "dmar_fault") ||
            instance_.add_probe("p", "fault", "dmar_fault"))
            enable(instance_.group(), "fault");
    }

    /// Takes over what is on.
    void find_enabled(const std::string& system) {
        for (const std::string& name : names_in(instance_.folder() / "events" / system)) {
            const fs::path folder = instance_.folder() / "events" / system / name;
            if (!read_line(folder / "enable").starts_with('1'))
                continue;
            const auto meaning = add_format(system, name);
            if (!meaning)
                continue;
            made.meanings.insert(*meaning);
            if (system == "dma")
                enabled.mappings += (enabled.mappings.empty() ? "" : ", ") + name;
            if (read_file(folder / "trigger").value_or("").find("stacktrace:") != std::string::npos)
                made.has_stacks = true;
        }
    }

    void describe() {
        const auto say = [&](std::string sentence) {
            made.sentences.push_back(std::move(sentence));
        };
        const bool has = made.meanings.contains(Meaning::console);
        if (!enabled.mappings.empty())
            say("mappings by the events " + enabled.mappings);
        if (enabled.iova_probes)
            say("allocations of the IOVA API by probes, at page granularity");
        if (!enabled.filters)
            say("the kernel rejected the filter by device: all devices cost ring space");
        say(made.has_stacks ? "stacks of maps by a trigger" : "no stacks");
        say(has ? "faults by the event printk:console"
                : "faults by /dev/kmsg, which may lose lines");
        if (made.meanings.contains(Meaning::page_fault))
            say("faults by the event iommu:io_page_fault, where the IOMMU's driver emits it");
        if (made.meanings.contains(Meaning::fault_handler))
            say("fault interrupts counted by a probe on dmar_fault");
        if (made.meanings.contains(Meaning::bounced))
            say("bounced mappings by the event swiotlb:swiotlb_bounced");
    }

    EventSetup made;
    Enabled enabled;

  private:
    const TraceInstance& instance_;
    const std::set<std::string, std::less<>>& devices_;
    bool stacks_;
};

} // namespace

std::expected<EventSetup, std::string> switch_on(const TraceInstance& instance,
                                                 const std::set<std::string, std::less<>>& devices,
                                                 bool stacks) {
    Setup setup(instance, devices, stacks);
    setup.enable_dma();
    if (setup.needs_iova_probes())
        setup.enable_iova_probes();
    if (setup.enabled.mappings.empty() && !setup.enabled.iova_probes)
        return std::unexpected("this kernel has no dma:* events (Linux 6.12 or later) and rejects "
                               "probes on iommu_dma_alloc_iova and free_iova_fast: no mapping can "
                               "be seen; boot a newer kernel, or one with CONFIG_KPROBE_EVENTS");
    setup.enable_faults();
    setup.describe();
    setup.made.sentences.emplace_back(
        "mappings from before now are unknown; boot with trace_instance=moat,dma:*,printk:console "
        "and attach with --instance moat to know them");
    return std::move(setup.made);
}

std::expected<EventSetup, std::string> find_events(const TraceInstance& instance) {
    const std::set<std::string, std::less<>> all;
    Setup setup(instance, all, false);
    for (const std::string system : {"dma", "printk", "iommu", "swiotlb"})
        setup.find_enabled(system);
    if (setup.enabled.mappings.empty())
        return std::unexpected("the instance " + instance.folder().filename().string() +
                               " records no dma:* event; enable them there, or boot with "
                               "trace_instance=moat,dma:*,printk:console");
    setup.describe();
    return std::move(setup.made);
}

} // namespace moat::watch
