// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RecordReader: trace records in the order of their times -> DmaEvents. Keeps what one record lacks
// and an earlier one had: a scatter list's addresses, a domain's device. Pure.
#pragma once

#include "moat/fault/decode.hpp"

#include "event_catalog.hpp"
#include "fault/dma_event.hpp"
#include "iova_probes.hpp"
#include "ring_page.hpp"
#include "time_order.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::watch {

/// Adds a ring's record to the order: a stack to its event, of an unknown event the header alone.
void add_ring_record(TimeOrder& order, const EventCatalog& catalog, unsigned cpu,
                     const RingRecord& record);

/// Passes on events with times that never decrease.
class RecordReader {
  public:
    /// `catalog` outlives it. Drops mappings of devices that are not in `wanted`, unless that is
    /// empty; keeps all faults.
    RecordReader(const EventCatalog& catalog, std::set<std::string, std::less<>> wanted);

    void add(const TracedRecord& record, fault::DmaEventSink sink);

    /// A line of the kernel's log.
    void add_line(std::uint64_t time_ns, std::string_view line, fault::DmaEventSink sink);

    /// All records before `time_ns` were added: passes on a fault that waited for further lines.
    void advance(std::uint64_t time_ns, fault::DmaEventSink sink);

    /// Passes on what waited.
    void end(fault::DmaEventSink sink);

  private:
    /// A record, its event, and what all DmaEvents of it have in common.
    struct Input {
        const TracedRecord& record;
        const CatalogEvent& event;
        fault::DmaEvent common;
    };

    [[nodiscard]] bool is_wanted(std::string_view device) const;
    void pass(fault::DmaEvent event, fault::DmaEventSink sink);
    void map(const Input& input, fault::DmaEventSink sink);
    void map_list(const Input& input, fault::DmaEventSink sink);
    void unmap(const Input& input, fault::DmaEventSink sink);
    void unmap_list(const Input& input, fault::DmaEventSink sink);
    void page_fault(const Input& input, fault::DmaEventSink sink);
    void bounced(const Input& input, fault::DmaEventSink sink);
    void log_event(const fault::LogEvent& event, fault::DmaEventSink sink);

    /// A device, and the physical address of a list's first entry.
    using ListKey = std::pair<std::string, std::uint64_t>;

    const EventCatalog& catalog_;
    std::set<std::string, std::less<>> wanted_;
    /// The IOVAs of the segments of live lists. `dma_unmap_sg` has physical addresses only.
    std::multimap<ListKey, std::vector<std::uint64_t>> lists_;
    IovaProbes probes_;
    std::set<std::string, std::less<>> bounced_; ///< the devices that a note named
    fault::Decoder decoder_;
    std::uint64_t line_ns_ = 0; ///< of the last line; 0: the decoder holds nothing
    std::uint64_t passed_ns_ = 0;
    std::uint64_t page_fault_ns_ = 0;
    std::uint64_t page_fault_page_ = 0; ///< of the last io_page_fault, which AMD's driver also logs
};

} // namespace moat::watch
