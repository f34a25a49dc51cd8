// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "event_setup.hpp"

#include "trace_files.hpp"

#include <optional>
#include <string_view>
#include <utility>

namespace moat::watch {

namespace fs = std::filesystem;

namespace {

/// `device == "a" || device == "b"`
std::string filter_of(const std::set<std::string, std::less<>>& devices) {
    std::string filter;
    for (const std::string& each : devices)
        filter += std::string(filter.empty() ? "" : " || ") + "device == \"" + each + '"';
    return filter;
}

/// Switches events on, or finds those that are on, and describes them.
/// Whether a driver's call is behind the event.
bool has_caller(Meaning meaning) {
    switch (meaning) {
    case Meaning::map:
    case Meaning::map_list:
    case Meaning::unmap:
    case Meaning::unmap_list:
    case Meaning::allocate_call:
    case Meaning::allocate:
    case Meaning::free:
        return true;
    default:
        return false;
    }
}

class EventSwitch {
  public:
    explicit EventSwitch(const TraceInstance& instance) : instance_(instance) {
        add_format("ftrace", "kernel_stack");
    }

    std::expected<EventSetup, std::string>
    switch_on(const std::set<std::string, std::less<>>& devices, bool stacks) {
        for (const std::string& name : names_in(instance_.tracefs() / "events/dma"))
            mappings_ += enable("dma", name, devices, stacks) ? 1 : 0;
        if (needs_iova_probes())
            enable_iova_probes(stacks);
        if (mappings_ == 0 && !has_iova_probes_)
            return std::unexpected(
                "this kernel has no dma:* events (Linux 6.12 or later) and rejects probes on "
                "iommu_dma_alloc_iova and free_iova_fast: no mapping can be seen; boot a newer "
                "kernel, or one with CONFIG_KPROBE_EVENTS");
        for (const auto& [system, name] : {std::pair{"printk", "console"},
                                           {"iommu", "io_page_fault"},
                                           {"swiotlb", "swiotlb_bounced"}})
            enable(system, name);
        if (instance_.add_probe("f", "fault", "dmar_fault") ||
            instance_.add_probe("p", "fault", "dmar_fault"))
            enable(instance_.group(), "fault");
        describe(stacks ? "the kernel rejected the trigger: no stacks" : "stacks are off");
        say("mappings from before now are unknown; boot with trace_instance=moat,dma:*,"
            "printk:console and attach to the instance moat to know them");
        return std::move(made_);
    }

    std::expected<EventSetup, std::string> find() {
        for (const std::string system : {"dma", "printk", "iommu", "swiotlb"})
            find_in(system);
        if (mappings_ == 0)
            return std::unexpected("the instance " + instance_.folder().filename().string() +
                                   " records no dma:* event; enable them there, or boot with "
                                   "trace_instance=moat,dma:*,printk:console");
        describe("the instance records no stacks");
        if (!off_.empty())
            say("the instance does not record " + off_ + ": what they map or unmap is unknown");
        return std::move(made_);
    }

  private:
    /// Adds an event's format to the catalog. Return: its meaning, if moat uses the event.
    std::optional<Meaning> add_format(const std::string& system, const std::string& name) {
        const auto text = read_file(instance_.tracefs() / "events" / system / name / "format");
        const auto format = text ? parse_event_format(*text) : std::nullopt;
        const auto meaning = format ? meaning_of(system, *format) : std::nullopt;
        if (meaning)
            made_.catalog.add(system, *text);
        return meaning;
    }

    /// Switches an event on. `devices`: its filter, if it is of the DMA API; empty: none. Return:
    /// whether it is on.
    bool enable(const std::string& system, const std::string& name,
                const std::set<std::string, std::less<>>& devices = {}, bool stacks = false) {
        const auto meaning = add_format(system, name);
        if (!meaning)
            return false;
        const fs::path folder = fs::path("events") / system / name;
        if (!devices.empty() && instance_.write(folder / "filter", filter_of(devices)) != 0)
            is_filtered_ = false;
        if (stacks && has_caller(*meaning) &&
            instance_.write(folder / "trigger", "stacktrace") == 0)
            made_.has_stacks = true;
        if (instance_.write(folder / "enable", "1") != 0)
            return false;
        made_.meanings.insert(*meaning);
        return true;
    }

    /// Linux 6.16 and later map by an API without events; before 6.12 nothing has events. A probe
    /// that the kernel accepts has its function; it stays off.
    [[nodiscard]] bool needs_iova_probes() const {
        return mappings_ == 0 || instance_.add_probe("f", "iova_api", "dma_iova_try_alloc") ||
               instance_.add_probe("p", "iova_api", "dma_iova_try_alloc");
    }

    /// fprobes read arguments by their names in BTF; kprobes by their places. There is no filter by
    /// device: a free names none, and all allocations tell whose it is.
    void enable_iova_probes(bool stacks) {
        const auto probe = [&](std::string_view kind, const std::string& name,
                               const std::string& where, bool with_stack) {
            if (!instance_.add_probe(kind, name, where))
                return false;
            made_.has_kprobes = made_.has_kprobes || kind != "f";
            return enable(instance_.group(), name, {}, with_stack);
        };
        const std::string returns = "iommu_dma_alloc_iova%return ";
        const std::string fields = "device=dev->kobj.name:string size=size:u64 r=$retval:x64";
        const bool allocates =
            probe("f", "alloc", returns + "cookie=domain->iova_cookie:x64 " + fields, stacks) ||
            probe("f", "alloc", returns + fields, stacks) ||
            (probe("p", "alloc_call",
                   "iommu_dma_alloc_iova device=+0(+0($arg4)):string size=$arg2:u64", stacks) &&
             probe("r512", "alloc", "iommu_dma_alloc_iova r=$retval:x64", false));
        const bool frees =
            probe("f", "free", "free_iova_fast iovad=iovad:x64 pfn=pfn:u64 size=size:u64", false) ||
            probe("p", "free", "free_iova_fast iovad=$arg1:x64 pfn=$arg2:u64 size=$arg3:u64",
                  false);
        has_iova_probes_ = allocates && frees;
        const std::string state = " device=dev->kobj.name:string addr=state->addr:x64 ";
        has_link_probes_ =
            probe("f", "dma_iova_link",
                  "dma_iova_link" + state +
                      "offset=offset:u64 size=size:u64 phys_addr=phys:x64 "
                      "dir=dir:u32",
                  stacks) &&
            probe("f", "dma_iova_unlink",
                  "dma_iova_unlink" + state + "offset=offset:u64 size=size:u64", stacks) &&
            probe("f", "dma_iova_destroy", "dma_iova_destroy" + state + "size=mapped_len:u64",
                  stacks);
    }

    void find_in(const std::string& system) {
        for (const std::string& name : names_in(instance_.tracefs() / "events" / system)) {
            const auto meaning = add_format(system, name);
            if (!meaning)
                continue;
            const fs::path folder = instance_.folder() / "events" / system / name;
            if (!read_line(folder / "enable").starts_with('1')) {
                if (system == "dma")
                    off_ += (off_.empty() ? "" : ", ") + name;
                continue;
            }
            made_.meanings.insert(*meaning);
            mappings_ += system == "dma" ? 1 : 0;
            const std::string trigger = read_file(folder / "trigger").value_or("");
            made_.has_stacks = made_.has_stacks || trigger.starts_with("stacktrace:");
        }
    }

    void describe(std::string_view without_stacks) {
        const auto has = [&](Meaning meaning) { return made_.meanings.contains(meaning); };
        if (mappings_ != 0)
            say("mappings by " + std::to_string(mappings_) + " events dma:*");
        if (has_iova_probes_)
            say(has_link_probes_ ? "mappings of the IOVA API by probes"
                                 : "allocations of the IOVA API by probes, at page granularity");
        if (made_.has_kprobes)
            say("the kernel skips kprobes in interrupts of one: such events count as lost");
        if (!is_filtered_)
            say("the kernel rejected the filter by device: all devices use space in the rings");
        say(made_.has_stacks ? "stacks by a trigger" : std::string(without_stacks));
        say(has(Meaning::console) ? "faults by the event printk:console"
                                  : "faults by /dev/kmsg, which may lose lines");
        if (has(Meaning::page_fault))
            say("faults by the event iommu:io_page_fault, if the IOMMU's driver emits it");
        if (has(Meaning::fault_handler))
            say("fault interrupts counted by a probe on dmar_fault");
        if (has(Meaning::bounced))
            say("bounced mappings by the event swiotlb:swiotlb_bounced");
    }

    void say(std::string sentence) { made_.sentences.push_back(std::move(sentence)); }

    const TraceInstance& instance_;
    EventSetup made_;
    unsigned mappings_ = 0; ///< events of the DMA API that are on
    std::string off_;       ///< those of another instance that are off
    bool has_iova_probes_ = false;
    bool has_link_probes_ = false;
    bool is_filtered_ = true;
};

} // namespace

std::expected<EventSetup, std::string> switch_on(const TraceInstance& instance,
                                                 const std::set<std::string, std::less<>>& devices,
                                                 bool stacks) {
    return EventSwitch(instance).switch_on(devices, stacks);
}

std::expected<EventSetup, std::string> find_events(const TraceInstance& instance) {
    return EventSwitch(instance).find();
}

} // namespace moat::watch
