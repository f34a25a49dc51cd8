// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "record_reader.hpp"

#include "moat/core/text.hpp"

#include "core/parse.hpp"
#include "fault/log_group.hpp"
#include "record_fields.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

namespace moat::watch {

namespace {

using fault::Allows;
using fault::DmaEvent;
using fault::DmaEventSink;
using fault::LogEvent;

constexpr std::size_t most_lists = 1U << 16;
/// A message that spans lines has them within this time.
constexpr std::uint64_t longest_message_ns = 50'000'000;
/// A driver logs a fault this soon after it passed it to the tracepoint.
constexpr std::uint64_t same_fault_ns = 100'000'000;
constexpr std::uint64_t page_mask = ~std::uint64_t{0xfff};

/// What the kernel writes for a trampoline of its tracer.
constexpr std::uint64_t trampoline_mark = 0x7fffffff;

/// enum dma_data_direction: from the device's side.
Allows allows_of(std::uint64_t direction) {
    switch (direction) {
    case 0:
        return Allows::read_write;
    case 1:
        return Allows::read;
    case 2:
        return Allows::write;
    default:
        return Allows::nothing;
    }
}

/// "0000:00:05.0"; empty if the source is no PCI function.
std::string pci_name(const fault::Source& source) {
    if (source.kind() != fault::Source::Kind::pci)
        return {};
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%04x:%02x:%02x.%u",
                  unsigned{source.segment().value_or(0)}, source.bus(), source.device(),
                  source.function());
    return text.data();
}

/// Whether the line warns about DMA without being a fault.
bool is_warning(const LogEvent& event) {
    switch (event.kind) {
    case LogEvent::Kind::map_failure:
    case LogEvent::Kind::invalidation:
    case LogEvent::Kind::unit_error:
    case LogEvent::Kind::bounce_full:
    case LogEvent::Kind::driver_error:
    case LogEvent::Kind::isolated:
        return true;
    default:
        return false;
    }
}

/// The record is longer than the field: `size` callers, from the field's start.
std::vector<std::uint64_t> stack_of(RecordBytes record, const CatalogEvent& event,
                                    const EventField& callers) {
    constexpr std::uint64_t most_callers = 512;
    const std::uint64_t size = RecordFields(record, event.format).number("size").value_or(0);
    EventField all = callers;
    all.size = static_cast<std::uint32_t>(std::min(size, most_callers) * all.element_size);
    auto stack = numbers_of(record, all);
    std::erase(stack, trampoline_mark);
    return stack;
}

/// An event has the address; a probe of the IOVA API has a range's start and an offset in it.
std::optional<std::uint64_t> start_of(const RecordFields& fields) {
    if (const auto address = fields.number("dma_addr"))
        return address;
    const auto start = fields.number("addr");
    return start ? std::optional(*start + fields.number("offset").value_or(0)) : std::nullopt;
}

} // namespace

void add_ring_record(TimeOrder& order, const EventCatalog& catalog, unsigned cpu,
                     const RingRecord& record) {
    const auto header = header_of(record.bytes);
    if (!header)
        return;
    const CatalogEvent* event = catalog.find(header->id);
    if (event != nullptr && event->meaning == Meaning::stack) {
        const EventField* callers = event->format.find("caller");
        if (callers != nullptr)
            order.add_stack(cpu, record.bytes, stack_of(record.bytes, *event, *callers));
        return;
    }
    const RecordBytes kept = event == nullptr ? record.bytes.first(header_bytes) : record.bytes;
    order.add({.time_ns = record.time_ns, .cpu = cpu, .bytes = {kept.begin(), kept.end()}});
}

RecordReader::RecordReader(const EventCatalog& catalog, std::set<std::string, std::less<>> wanted)
    : catalog_(catalog), wanted_(std::move(wanted)) {}

bool RecordReader::is_wanted(std::string_view device) const {
    return wanted_.empty() || wanted_.contains(device);
}

void RecordReader::pass(DmaEvent event, DmaEventSink sink) {
    passed_ns_ = event.time_ns = std::max(event.time_ns, passed_ns_);
    sink(event);
}

void RecordReader::add(const TracedRecord& record, DmaEventSink sink) {
    if (record.lost)
        return pass(
            {.kind = DmaEvent::Kind::lost, .time_ns = record.time_ns, .count = *record.lost}, sink);
    if (!record.line.empty())
        return add_line(record.time_ns, record.line, sink);
    const auto header = header_of(record.bytes);
    const CatalogEvent* event = header ? catalog_.find(header->id) : nullptr;
    if (event == nullptr)
        return;
    const EventFormat& format = event->format;
    const RecordFields fields(record.bytes, format);
    const std::string_view device = fields.text(fields.has("dev_name") ? "dev_name" : "device");
    const Input input = {.record = record,
                         .event = *event,
                         .common = {.time_ns = record.time_ns,
                                    .thread = header->pid,
                                    .device = device,
                                    .call = format.name,
                                    .stack = callers_of(record.stack, fields)}};
    std::optional<DmaEvent> probed;
    switch (event->meaning) {
    case Meaning::map:
        return map(input, sink);
    case Meaning::map_list:
        return map_list(input, sink);
    case Meaning::unmap:
        return unmap(input, sink);
    case Meaning::unmap_list:
        return unmap_list(input, sink);
    case Meaning::page_fault:
        return page_fault(input, sink);
    case Meaning::bounced:
        return bounced(input, sink);
    case Meaning::console:
        return add_line(record.time_ns, fields.text("msg"), sink);
    case Meaning::stack:
        return;
    case Meaning::fault_handler:
        return pass({.kind = DmaEvent::Kind::fault_count, .time_ns = record.time_ns, .count = 1},
                    sink);
    case Meaning::allocate_call:
        return probes_.call(record, format);
    case Meaning::allocate:
        probed = probes_.allocate(record, format, input.common);
        break;
    case Meaning::free:
        probed = probes_.free(record, format, input.common);
        break;
    }
    if (probed && (probed->device.empty() || is_wanted(probed->device)))
        pass(*probed, sink);
}

void RecordReader::map(const Input& input, DmaEventSink sink) {
    const RecordFields fields(input.record.bytes, input.event.format);
    const auto start = start_of(fields);
    const auto size = fields.number("size");
    const bool has_failed = fields.number("virt_addr") == 0U;
    if (!start || !size || has_failed || !is_wanted(input.common.device))
        return;
    // A failed mapping has the last address of all, where nothing fits.
    const auto range = IovaRange::make(Iova(*start), ByteCount(*size));
    if (!range || range->empty())
        return;
    DmaEvent event = input.common;
    event.kind = DmaEvent::Kind::map;
    event.range = *range;
    event.allows = allows_of(fields.number("dir").value_or(0));
    event.physical = fields.number("phys_addr");
    pass(event, sink);
}

void RecordReader::map_list(const Input& input, DmaEventSink sink) {
    if (!is_wanted(input.common.device))
        return;
    const RecordFields fields(input.record.bytes, input.event.format);
    const auto starts = fields.numbers("dma_addrs");
    const auto sizes = fields.numbers("lengths");
    const auto physical = fields.numbers("phys_addrs");
    DmaEvent event = input.common;
    event.kind = DmaEvent::Kind::map;
    event.allows = allows_of(fields.number("dir").value_or(0));
    std::vector<std::uint64_t> mapped;
    for (std::size_t i = 0; i != std::min(starts.size(), sizes.size()); ++i) {
        const auto range = IovaRange::make(Iova(starts[i]), ByteCount(sizes[i]));
        if (!range || range->empty())
            continue;
        // The IOMMU joins entries: then only the first segment's physical address is known.
        const bool has_physical = physical.size() == starts.size() || (i == 0 && !physical.empty());
        event.range = *range;
        event.physical = has_physical ? std::optional(physical[i]) : std::nullopt;
        mapped.push_back(starts[i]);
        pass(event, sink);
    }
    if (!mapped.empty() && !physical.empty()) {
        if (lists_.size() == most_lists)
            lists_.clear(); // their unmaps were lost
        lists_.emplace(ListKey(input.common.device, physical[0]), std::move(mapped));
    }
    if (fields.number("truncated").value_or(0) != 0) {
        const std::uint64_t all = fields.number("full_ents").value_or(0);
        pass({.kind = DmaEvent::Kind::lost,
              .time_ns = input.common.time_ns,
              .count = all > starts.size() ? all - starts.size() : 0},
             sink);
    }
}

void RecordReader::unmap(const Input& input, DmaEventSink sink) {
    const RecordFields fields(input.record.bytes, input.event.format);
    const auto start = start_of(fields);
    if (!start || fields.number("virt_addr") == 0U || !is_wanted(input.common.device))
        return;
    const auto size = fields.number("size").value_or(0);
    DmaEvent event = input.common;
    event.kind = DmaEvent::Kind::unmap;
    event.range = IovaRange::make(Iova(*start), ByteCount(size))
                      .value_or(IovaRange(Iova(*start), ByteCount(0)));
    pass(event, sink);
}

void RecordReader::unmap_list(const Input& input, DmaEventSink sink) {
    const RecordFields fields(input.record.bytes, input.event.format);
    const auto physical = fields.numbers("addrs");
    if (physical.empty() || !is_wanted(input.common.device))
        return;
    DmaEvent event = input.common;
    // The oldest of several: two lists may begin with the same page.
    const auto [list, last] = lists_.equal_range(ListKey(event.device, physical[0]));
    if (list != last) {
        event.kind = DmaEvent::Kind::unmap;
        for (const std::uint64_t start : list->second) {
            event.range = IovaRange(Iova(start), ByteCount(0));
            pass(event, sink);
        }
        lists_.erase(list);
        return;
    }
    event.kind = DmaEvent::Kind::unmap_page;
    for (const std::uint64_t each : physical) {
        event.physical = each;
        pass(event, sink);
    }
}

void RecordReader::page_fault(const Input& input, DmaEventSink sink) {
    const RecordFields fields(input.record.bytes, input.event.format);
    const auto address = fields.number("iova");
    if (!address)
        return;
    const std::uint64_t flags = fields.number("flags").value_or(0); // bit 0: IOMMU_FAULT_WRITE
    DmaEvent event = input.common;
    event.kind = DmaEvent::Kind::fault;
    event.record = {.source = fault::parse_pci_function(event.device).value_or(fault::Source()),
                    .access = (flags & 1) != 0 ? fault::Access::write : fault::Access::read,
                    .precision = fault::Precision::start,
                    .where = IovaRange(Iova(*address), ByteCount(1)),
                    .time_ns = event.time_ns};
    page_fault_ns_ = event.time_ns;
    page_fault_page_ = *address & page_mask;
    pass(event, sink);
}

void RecordReader::bounced(const Input& input, DmaEventSink sink) {
    if (!is_wanted(input.common.device) || !bounced_.emplace(input.common.device).second)
        return;
    DmaEvent event = input.common;
    const std::string text = "swiotlb bounces mappings of " + std::string(event.device) +
                             ": an overrun of one lands in the bounce buffers";
    event.kind = DmaEvent::Kind::note;
    event.call = text;
    pass(event, sink);
}

void RecordReader::add_line(std::uint64_t time_ns, std::string_view line, DmaEventSink sink) {
    advance(time_ns, sink);
    line_ns_ = std::max<std::uint64_t>(time_ns, 1);
    const auto take = [&](const LogEvent& event) { log_event(event, sink); };
    while (!line.empty())
        decoder_.line(take_until(line, '\n'), take);
}

void RecordReader::advance(std::uint64_t time_ns, DmaEventSink sink) {
    if (line_ns_ != 0 && time_ns > line_ns_ && time_ns - line_ns_ > longest_message_ns)
        end(sink);
}

void RecordReader::end(DmaEventSink sink) {
    const auto take = [&](const LogEvent& event) { log_event(event, sink); };
    decoder_.end(take);
    line_ns_ = 0;
}

void RecordReader::log_event(const LogEvent& event, DmaEventSink sink) {
    DmaEvent made;
    made.time_ns = line_ns_;
    made.count = event.record.suppressed;
    made.kind = DmaEvent::Kind::suppressed;
    if (made.count != 0)
        pass(made, sink);
    std::string device = pci_name(event.record.source); // as the DMA events name it
    if (device.empty())
        device = event.device;
    made.device = device;
    made.count = 0;
    if (event.kind == LogEvent::Kind::fault) {
        const bool is_known = event.record.precision != fault::Precision::none &&
                              page_fault_ns_ != 0 && line_ns_ - page_fault_ns_ < same_fault_ns &&
                              (event.record.where.start().value() & page_mask) == page_fault_page_;
        made.kind = DmaEvent::Kind::fault;
        made.record = event.record;
        made.record.suppressed = 0;
        made.record.time_ns = line_ns_;
        if (!is_known)
            pass(made, sink);
    } else if (is_warning(event)) {
        made.kind = DmaEvent::Kind::note;
        made.count = 1;
        made.call = event.raw;
        pass(made, sink);
    }
}

} // namespace moat::watch
