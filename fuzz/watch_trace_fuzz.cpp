// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arbitrary bytes as format files and ring pages of Linux's tracing: events or none, never a read
// outside. The first byte is how many formats follow; each ends with a zero byte.
#include "watch/trace/event_catalog.hpp"
#include "watch/trace/record_reader.hpp"
#include "watch/trace/ring_page.hpp"
#include "watch/trace/time_order.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace {

using namespace moat;

void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

/// Formats of Linux 6.12, shortened: without them an input rarely has a known event.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> trace_formats = {{
    {"dma", "name: dma_map_page\nID: 1\n"
            "field:__data_loc char[] device; offset:8; size:4; signed:0;\n"
            "field:u64 phys_addr; offset:16; size:8; signed:0;\n"
            "field:u64 dma_addr; offset:24; size:8; signed:0;\n"
            "field:size_t size; offset:32; size:8; signed:0;\n"
            "field:int dir; offset:40; size:4; signed:0;\n"},
    {"dma", "name: dma_map_sg\nID: 2\n"
            "field:__data_loc char[] device; offset:8; size:4; signed:0;\n"
            "field:bool truncated; offset:20; size:1; signed:0;\n"
            "field:__data_loc u64[] phys_addrs; offset:24; size:4; signed:0;\n"
            "field:__data_loc u64[] dma_addrs; offset:28; size:4; signed:0;\n"
            "field:__data_loc unsigned int[] lengths; offset:32; size:4; signed:0;\n"},
    {"dma", "name: dma_unmap_sg\nID: 3\n"
            "field:__rel_loc char[] device; offset:8; size:4; signed:0;\n"
            "field:__data_loc u64[] addrs; offset:12; size:4; signed:0;\n"},
    {"ftrace", "name: kernel_stack\nID: 4\n"
               "field:int size; offset:8; size:4; signed:1;\n"
               "field:unsigned long caller[8]; offset:16; size:64; signed:0;\n"},
    {"printk", "name: console\nID: 5\n"
               "field:__data_loc char[] msg; offset:8; size:4; signed:0;\n"},
}};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view rest(reinterpret_cast<const char*>(data), size);
    watch::EventCatalog catalog;
    for (const auto& [system, format] : trace_formats)
        require(catalog.add(system, format));
    const auto take = [&](std::size_t bytes) {
        const std::string_view part = rest.substr(0, std::min(bytes, rest.size()));
        rest.remove_prefix(part.size());
        return part;
    };
    const std::string_view counts = take(1);
    constexpr std::array<std::string_view, 5> systems = {"dma", "moat_1", "iommu", "swiotlb",
                                                         "printk"};
    for (unsigned i = 0; !counts.empty() && i != static_cast<unsigned char>(counts[0]) % 8; ++i) {
        const std::string_view text = take(std::min(rest.find('\0'), rest.size()));
        catalog.add(systems[i % systems.size()], text);
        take(1);
    }

    watch::TimeOrder order;
    watch::RecordReader reader(catalog, {});
    const watch::PageLayout layout;
    for (unsigned cpu = 0; !rest.empty(); cpu = (cpu + 1) % 4) {
        const std::string_view ring_page = take(layout.page_bytes());
        const auto lost = [&](const watch::PageLoss& loss) {
            order.add({.time_ns = loss.time_ns, .cpu = cpu, .lost = loss.count});
        };
        const auto record = [&](const watch::RingRecord& each) {
            watch::add_ring_record(order, catalog, cpu, each);
        };
        watch::decode_page(std::as_bytes(std::span(ring_page)), layout, lost, record);
    }
    std::uint64_t last = 0;
    const auto use = [&](const fault::DmaEvent& event) {
        require(event.time_ns >= last);
        last = event.time_ns;
        const bool is_map = event.kind == fault::DmaEvent::Kind::map ||
                            event.kind == fault::DmaEvent::Kind::allocate;
        require(!is_map || !event.range.empty());
    };
    const auto read = [&](const watch::TracedRecord& record) { reader.add(record, use); };
    order.pass(~std::uint64_t{0}, read);
    reader.end(use);
    return 0;
}
