// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/core/text.hpp"

#include "trace_data.hpp"
#include "watch/trace/event_catalog.hpp"
#include "watch/trace/record_reader.hpp"
#include "watch/trace/ring_page.hpp"
#include "watch/trace/time_order.hpp"

#include <gtest/gtest.h>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace moat::watch {
namespace {

const TraceCapture& linux_6_12() {
    static const TraceCapture capture = read_capture(MOAT_TEST_DATA "/linux_6.12.trace");
    return capture;
}

EventCatalog catalog_of(const TraceCapture& capture) {
    EventCatalog catalog;
    for (const auto& [path, text] : capture.files)
        if (path.ends_with("/format")) {
            const std::size_t start = path.find('/') + 1;
            catalog.add(path.substr(start, path.find('/', start) - start), text);
        }
    return catalog;
}

/// "map 0000:00:05.0 dma_map_page [0xfff8fe00, +512B) write physical=0x7d44ce00 stack=16"
std::string text_of(const fault::DmaEvent& event) {
    using Kind = fault::DmaEvent::Kind;
    std::string text{fault::name(event.kind)};
    for (const std::string_view part : {event.device, event.call})
        if (!part.empty())
            text.append(" ").append(part);
    if (event.kind == Kind::fault) {
        text.append(" ").append(fault::name(event.record.access)).append(" ");
        text += hexadecimal(event.record.where.start().value());
    } else if (!event.range.empty() || event.kind == Kind::unmap) {
        text += " [" + hexadecimal(event.range.start().value()) + ", +" +
                to_string(event.range.size()) + ")";
    }
    if (event.kind == Kind::map)
        text.append(" ").append(fault::name(event.allows));
    if (event.physical)
        text += " physical=" + hexadecimal(*event.physical);
    if (!event.stack.empty())
        text += " stack=" + std::to_string(event.stack.size());
    if (event.count != 0)
        text += " count=" + std::to_string(event.count);
    return text;
}

/// Decodes pages to the end, as the live source does.
class Pipeline {
  public:
    explicit Pipeline(const TraceCapture& capture, std::set<std::string, std::less<>> wanted = {})
        : catalog_(catalog_of(capture)), reader_(catalog_, std::move(wanted)) {}

    void page(unsigned cpu, std::span<const std::byte> page) {
        const auto lost = [&](const PageLoss& loss) {
            order_.add({.time_ns = loss.time_ns, .cpu = cpu, .lost = loss.count});
        };
        const auto record = [&](const RingRecord& each) {
            add_ring_record(order_, catalog_, cpu, each);
        };
        decode_page(page, PageLayout{}, lost, record);
    }

    std::vector<std::string> events(std::uint64_t cut_ns = ~std::uint64_t{0}) {
        std::vector<std::string> texts;
        std::uint64_t last = 0;
        const auto keep = [&](const fault::DmaEvent& event) {
            EXPECT_GE(event.time_ns, last);
            last = event.time_ns;
            texts.push_back(text_of(event));
        };
        const auto read = [&](const TracedRecord& record) { reader_.add(record, keep); };
        order_.pass(cut_ns, read);
        if (cut_ns == ~std::uint64_t{0})
            reader_.end(keep);
        return texts;
    }

  private:
    EventCatalog catalog_;
    TimeOrder order_;
    RecordReader reader_;
};

TEST(TraceDecode, decodes_a_stray_write_of_linux_6_12) {
    Pipeline pipeline(linux_6_12());
    for (const auto& [cpu, page] : linux_6_12().pages)
        pipeline.page(cpu, page);
    EXPECT_EQ(
        pipeline.events(),
        (std::vector<std::string>{
            "allocate 0000:00:05.0 iommu_dma_alloc_iova [0xfffa0000, +64K)",
            "map 0000:00:05.0 dma_map_sg [0xfffa0000, +64K) write physical=0x2dec000 stack=16",
            "unmap 0000:00:05.0 dma_unmap_sg [0xfffa0000, +0B)",
            "allocate 0000:00:05.0 iommu_dma_alloc_iova [0xfff90000, +64K)",
            "map 0000:00:05.0 dma_map_sg [0xfff90000, +64K) write physical=0x2dec000 stack=16",
            "unmap 0000:00:05.0 dma_unmap_sg [0xfff90000, +0B)",
            "free 0000:00:05.0 free_iova_fast [0xfffa0000, +64K)",
            "free 0000:00:05.0 free_iova_fast [0xfff90000, +64K)",
            "allocate 0000:00:05.0 iommu_dma_alloc_iova [0xfff8f000, +4K)",
            "map 0000:00:05.0 dma_map_page [0xfff8fe00, +512B) write physical=0x7d44ce00 stack=16",
            "fault-count count=1",
            "fault 0000:00:05.0 write 0x0",
            "unmap 0000:00:05.0 dma_unmap_page [0xfff8fe00, +512B)",
            "free 0000:00:05.0 free_iova_fast [0xfff8f000, +4K)",
        }));
}

TEST(TraceDecode, drops_other_devices_but_no_fault) {
    Pipeline pipeline(linux_6_12(), {"0000:00:06.0"});
    for (const auto& [cpu, page] : linux_6_12().pages)
        pipeline.page(cpu, page);
    EXPECT_EQ(pipeline.events(),
              (std::vector<std::string>{"fault-count count=1", "fault 0000:00:05.0 write 0x0"}));
}

PageBytes header_record(std::uint16_t id, std::uint32_t pid, std::uint8_t flags = 0) {
    PageBytes bytes(8);
    std::memcpy(bytes.data(), &id, 2);
    bytes[2] = std::byte{flags};
    std::memcpy(bytes.data() + 4, &pid, 4);
    return bytes;
}

template <class Number>
void put(PageBytes& record, std::size_t at, Number number) {
    record.resize(std::max(record.size(), at + sizeof number));
    std::memcpy(record.data() + at, &number, sizeof number);
}

void put_text(PageBytes& record, std::size_t location_at, std::string_view text) {
    put(record, location_at, static_cast<std::uint32_t>((text.size() + 1) << 16 | record.size()));
    for (const char c : text)
        record.push_back(static_cast<std::byte>(c));
    record.push_back(std::byte{0});
}

std::uint16_t id_of(std::string_view path) {
    return static_cast<std::uint16_t>(
        parse_event_format(linux_6_12().files.at(std::string(path)))->id);
}

PageBytes map_page(std::uint64_t iova, std::uint32_t pid = 7, std::uint8_t flags = 0) {
    PageBytes record = header_record(id_of("events/dma/dma_map_page/format"), pid, flags);
    put(record, 16, std::uint64_t{0x5000});
    put(record, 24, iova);
    put(record, 32, std::uint64_t{256});
    put(record, 40, std::uint32_t{1});
    put(record, 48, std::uint64_t{0});
    put_text(record, 8, "0000:00:05.0");
    return record;
}

PageBytes kernel_stack(std::vector<std::uint64_t> callers, std::uint32_t pid = 7,
                       std::uint8_t flags = 0) {
    PageBytes record = header_record(id_of("events/ftrace/kernel_stack/format"), pid, flags);
    put(record, 8, static_cast<std::uint32_t>(callers.size()));
    for (std::size_t i = 0; i != callers.size(); ++i)
        put(record, 16 + 8 * i, callers[i]);
    return record;
}

PageBytes console(std::string_view line) {
    PageBytes record = header_record(id_of("events/printk/console/format"), 0);
    put(record, 8, std::uint32_t{0});
    put_text(record, 8, line);
    return record;
}

TEST(TraceDecode, reports_lost_records_with_their_count_before_what_follows) {
    Pipeline pipeline(linux_6_12());
    PageWriter writer(1000);
    writer.record(5, map_page(0x10000));
    pipeline.page(0, writer.page_after_loss(77));
    pipeline.page(1, writer.page_after_loss(0));
    EXPECT_EQ(pipeline.events(),
              (std::vector<std::string>{
                  "lost count=77", "lost",
                  "map 0000:00:05.0 dma_map_page [0x10000, +256B) read physical=0x5000",
                  "map 0000:00:05.0 dma_map_page [0x10000, +256B) read physical=0x5000"}));
}

TEST(TraceDecode, gives_a_stack_to_the_event_of_its_thread_and_interrupt_level) {
    Pipeline pipeline(linux_6_12());
    PageWriter writer(1000);
    writer.record(1, map_page(0x10000));
    writer.record(1, map_page(0x20000, 7, 0x08)); // an interrupt before the stack of the first
    writer.record(1, map_page(0x30000, 7, 0x08));
    writer.record(1, kernel_stack({1, 2}, 7, 0x08));
    writer.record(1, kernel_stack({1, 2, 0x7fffffff, 3}));
    writer.record(1, map_page(0x40000));
    writer.record(1, kernel_stack({1}, 8)); // of no event here
    pipeline.page(0, writer.page());
    EXPECT_EQ(pipeline.events(),
              (std::vector<std::string>{
                  "map 0000:00:05.0 dma_map_page [0x10000, +256B) read physical=0x5000 stack=3",
                  "map 0000:00:05.0 dma_map_page [0x20000, +256B) read physical=0x5000",
                  "map 0000:00:05.0 dma_map_page [0x30000, +256B) read physical=0x5000 stack=2",
                  "map 0000:00:05.0 dma_map_page [0x40000, +256B) read physical=0x5000"}));
}

TEST(TraceDecode, orders_the_events_of_all_cpus_and_holds_what_is_younger_than_the_cut) {
    Pipeline pipeline(linux_6_12());
    PageWriter first(1000);
    first.record(0, map_page(0x10000));
    first.record(100, map_page(0x30000));
    PageWriter second(1050);
    second.record(0, map_page(0x20000));
    second.record(100, map_page(0x40000));
    pipeline.page(0, first.page());
    pipeline.page(1, second.page());
    const std::string end = ", +256B) read physical=0x5000";
    const std::string begin = "map 0000:00:05.0 dma_map_page [";
    EXPECT_EQ(pipeline.events(1100),
              (std::vector<std::string>{begin + "0x10000" + end, begin + "0x20000" + end}));
    PageWriter late(1040); // older than what was passed: as late as that
    late.record(0, map_page(0x50000));
    pipeline.page(2, late.page());
    EXPECT_EQ(pipeline.events(),
              (std::vector<std::string>{begin + "0x50000" + end, begin + "0x30000" + end,
                                        begin + "0x40000" + end}));
}

TEST(TraceDecode, adds_up_the_kinds_of_time) {
    PageWriter writer(0x0900'0000'0000'0000);
    writer.record(3, header_record(9, 1));
    writer.append(std::uint32_t{5} << 5 | 30); // + 5 + (2 << 27)
    writer.append(std::uint32_t{2});
    writer.long_record(1, header_record(9, 2));
    writer.append(std::uint32_t{7} << 5 | 29); // a discarded record of 8 bytes
    writer.append(std::uint32_t{4});
    writer.record(0, header_record(9, 3));
    writer.append(std::uint32_t{9} << 5 | 31); // the lower 59 bits
    writer.append(std::uint32_t{1} << 31);
    writer.record(2, header_record(9, 4));
    std::vector<std::uint64_t> times;
    const auto no_loss = [](const PageLoss& /*loss*/) { FAIL(); };
    const auto keep = [&](const RingRecord& record) {
        EXPECT_EQ(header_of(record.bytes)->pid, times.size() + 1);
        times.push_back(record.time_ns);
    };
    decode_page(writer.page(), PageLayout{}, no_loss, keep);
    const std::uint64_t start = 0x0900'0000'0000'0000;
    const std::uint64_t extended = start + 3 + 5 + (std::uint64_t{2} << 27);
    EXPECT_EQ(times, (std::vector<std::uint64_t>{start + 3, extended + 1, extended + 8,
                                                 start - 0x0100'0000'0000'0000 + 9 +
                                                     (std::uint64_t{1} << 58) + 2}));
}

TEST(TraceDecode, carries_a_time_stamp_past_its_59_bits) {
    PageWriter writer((std::uint64_t{1} << 59) - 1);
    writer.append(std::uint32_t{9} << 5 | 31);
    writer.append(std::uint32_t{0});
    writer.record(0, header_record(9, 1));
    std::uint64_t time_ns = 0;
    const auto no_loss = [](const PageLoss& /*loss*/) { FAIL(); };
    const auto keep = [&](const RingRecord& record) { time_ns = record.time_ns; };
    decode_page(writer.page(), PageLayout{}, no_loss, keep);
    EXPECT_EQ(time_ns, (std::uint64_t{1} << 59) + 9);
}

TEST(TraceDecode, counts_suppressed_lines_and_notes_warnings) {
    Pipeline pipeline(linux_6_12());
    PageWriter writer(1000);
    writer.record(1, console("dmar_fault: 12 callbacks suppressed"));
    writer.record(1, console("DMAR: DRHD: handling fault status reg 2"));
    writer.long_record(1, console("DMAR: [DMA Read NO_PASID] Request device [00:05.0] fault addr "
                                  "0x7000 [fault reason 0x06] PTE Read access is not set"));
    writer.record(1, console("iommu: Detected page leak!"));
    pipeline.page(0, writer.page());
    EXPECT_EQ(pipeline.events(),
              (std::vector<std::string>{"suppressed count=12", "fault 0000:00:05.0 read 0x7000",
                                        "note iommu: Detected page leak! count=1"}));
}

PageBytes with_text(PageBytes record, std::size_t location_at, std::string_view text) {
    put_text(record, location_at, text);
    return record;
}

void put_numbers(PageBytes& record, std::size_t location_at, std::vector<std::uint64_t> numbers,
                 std::size_t size) {
    put(record, location_at,
        static_cast<std::uint32_t>(numbers.size() * size << 16 | record.size()));
    for (const std::uint64_t number : numbers) {
        const std::size_t at = record.size();
        put(record, at, number);
        record.resize(at + size);
    }
}

struct List {
    std::vector<std::uint64_t> physical = {};
    std::vector<std::uint64_t> starts = {};
    bool truncated = false;
};

PageBytes map_list(const List& list) {
    PageBytes record = header_record(id_of("events/dma/dma_map_sg/format"), 7);
    put(record, 16, std::uint32_t{200}); // full_ents
    put(record, 20, std::uint8_t{list.truncated});
    put(record, 40, std::uint64_t{0});
    put_numbers(record, 24, list.physical, 8);
    put_numbers(record, 28, list.starts, 8);
    put_numbers(record, 32, std::vector<std::uint64_t>(list.starts.size(), 512), 4);
    return with_text(record, 8, "d");
}

PageBytes unmap_list(std::vector<std::uint64_t> physical) {
    PageBytes record = header_record(id_of("events/dma/dma_unmap_sg/format"), 7);
    put(record, 24, std::uint64_t{0});
    put_numbers(record, 12, std::move(physical), 8);
    return with_text(record, 8, "d");
}

std::vector<std::string> events_of(const std::vector<PageBytes>& records) {
    Pipeline pipeline(linux_6_12());
    PageWriter writer(1000);
    for (const PageBytes& each : records)
        writer.long_record(1, each);
    pipeline.page(0, writer.page());
    return pipeline.events();
}

TEST(TraceDecode, ends_each_segment_of_a_list_by_the_lists_first_physical_address) {
    EXPECT_EQ(events_of({map_list({.physical = {0x1000, 0x5000}, .starts = {0xa000, 0xb000}}),
                         map_list({.physical = {0x1000, 0x2000, 0x3000}, .starts = {0xc000}}),
                         unmap_list({0x1000, 0x5000}), unmap_list({0x1000, 0x2000, 0x3000}),
                         unmap_list({0x1000, 0x7000})}),
              (std::vector<std::string>{
                  "map d dma_map_sg [0xa000, +512B) read-write physical=0x1000",
                  "map d dma_map_sg [0xb000, +512B) read-write physical=0x5000",
                  "map d dma_map_sg [0xc000, +512B) read-write physical=0x1000",
                  "unmap d dma_unmap_sg [0xa000, +0B)", "unmap d dma_unmap_sg [0xb000, +0B)",
                  "unmap d dma_unmap_sg [0xc000, +0B)", "unmap-page d dma_unmap_sg physical=0x1000",
                  "unmap-page d dma_unmap_sg physical=0x7000"}));
}

TEST(TraceDecode, counts_the_segments_that_the_kernel_left_out_as_lost) {
    EXPECT_EQ(
        events_of({map_list({.physical = {0x1000}, .starts = {0xa000}, .truncated = true})}),
        (std::vector<std::string>{"map d dma_map_sg [0xa000, +512B) read-write physical=0x1000",
                                  "lost count=199"}));
}

TEST(TraceDecode, passes_on_a_fault_once_that_the_driver_also_logs) {
    PageBytes fault = header_record(id_of("events/iommu/io_page_fault/format"), 0);
    put(fault, 16, std::uint64_t{0x7123});
    put(fault, 24, std::uint32_t{1});
    const auto line = [](std::string_view address) {
        return console("AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:05.0 domain=0x000a "
                       "address=" +
                       std::string(address) + " flags=0x0020]");
    };
    EXPECT_EQ(events_of({with_text(fault, 8, "0000:00:05.0"), line("0x7123"), line("0x9000")}),
              (std::vector<std::string>{"fault 0000:00:05.0 io_page_fault write 0x7123",
                                        "fault 0000:00:05.0 unknown 0x9000"}));
}

TEST(TraceDecode, notes_a_bouncing_device_once) {
    PageBytes bounced = header_record(id_of("events/swiotlb/swiotlb_bounced/format"), 0);
    put(bounced, 40, std::uint8_t{0});
    const PageBytes record = with_text(bounced, 8, "0000:00:05.0");
    const auto events = events_of({record, record});
    ASSERT_EQ(events.size(), 1U);
    EXPECT_TRUE(events[0].starts_with("note 0000:00:05.0 swiotlb bounces mappings")) << events[0];
}

TEST(TraceDecode, skips_failed_mappings) {
    Pipeline pipeline(linux_6_12());
    PageWriter writer(1000);
    writer.record(1, map_page(~std::uint64_t{0}));
    writer.record(1, map_page(0x10000));
    pipeline.page(0, writer.page());
    EXPECT_EQ(pipeline.events().size(), 1U);
}

TEST(TraceDecode, understands_the_formats_of_linux_6_12) {
    std::map<Meaning, std::string> meanings;
    std::set<std::string> unused;
    for (const auto& [path, text] : linux_6_12().files) {
        if (!path.ends_with("/format"))
            continue;
        const auto format = parse_event_format(text);
        ASSERT_TRUE(format) << path;
        const std::string system = path.substr(7, path.find('/', 7) - 7);
        if (const auto meaning = meaning_of(system, *format))
            meanings[*meaning] += format->name + " ";
        else
            unused.insert(format->name);
    }
    EXPECT_EQ(unused, (std::set<std::string>{"dma_map_sg_err", "dma_sync_single_for_cpu"}));
    EXPECT_EQ(meanings[Meaning::map], "dma_alloc dma_alloc_sgt dma_map_page ");
    EXPECT_EQ(meanings[Meaning::unmap], "dma_free dma_free_sgt dma_unmap_page ");
    EXPECT_EQ(meanings[Meaning::map_list], "dma_map_sg ");
    EXPECT_EQ(meanings[Meaning::unmap_list], "dma_unmap_sg ");
    EXPECT_EQ(meanings.size(), 11U); // all but the entry of a call, which 6.1 has
}

TEST(TraceDecode, reads_fields_only_within_the_record) {
    const auto format =
        parse_event_format("name: x\nID: 9\nformat:\n"
                           "\tfield:s16 small;\toffset:8;\tsize:2;\tsigned:1;\n"
                           "\tfield:__data_loc char[] s;\toffset:12;\tsize:4;\tsigned:0;\n"
                           "\tfield:__rel_loc u32[] r;\toffset:16;\tsize:4;\tsigned:0;\n"
                           "\tfield:char comm[4];\toffset:8;\tsize:4;\tsigned:0;\n");
    ASSERT_TRUE(format);
    ASSERT_EQ(format->fields.size(), 4U);
    PageBytes record(20);
    put(record, 8, std::int16_t{-2});
    put(record, 12, std::uint32_t{0xffff'0012}); // 65,535 bytes from 18
    put(record, 16, std::uint32_t{8 << 16 | 0});
    put(record, 20, std::uint32_t{0x11223344}); // the second element is missing
    record[18] = std::byte{'a'};
    EXPECT_EQ(number_of(record, *format->find("small")), ~std::uint64_t{1});
    EXPECT_EQ(text_of(record, *format->find("s")).substr(0, 1), "a");
    EXPECT_EQ(numbers_of(record, *format->find("r")), std::vector<std::uint64_t>{0x11223344});
    EXPECT_EQ(text_of(record, *format->find("comm")).size(), 2U);
    EXPECT_EQ(number_of(RecordBytes(record).first(9), *format->find("small")), std::nullopt);
    EXPECT_EQ(text_of(RecordBytes(record).first(14), *format->find("s")), "");
}

TEST(TraceDecode, reads_the_layout_of_pages) {
    const PageLayout layout = parse_page_layout(linux_6_12().files.at("events/header_page"));
    EXPECT_EQ(layout.page_bytes(), 4096U);
    EXPECT_EQ(layout.commit_offset, 8U);
    EXPECT_EQ(parse_page_layout("\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
                                "\tfield: char data;\toffset:16;\tsize:65520;\tsigned:1;\n")
                  .page_bytes(),
              65536U);
    EXPECT_EQ(parse_page_layout("nonsense").page_bytes(), 4096U);
}

/// The formats of probes on Linux 6.1, whose kprobes read arguments by their places.
TraceCapture linux_6_1_probes() {
    const std::string path = "events/moat_164/";
    const std::string at = "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n";
    return {
        .files = {{path + "alloc_call/format",
                   "name: alloc_call\nID: 1433\n" + at +
                       "\tfield:__data_loc char[] device;\toffset:16;\tsize:4;\tsigned:1;\n"
                       "\tfield:u64 size;\toffset:20;\tsize:8;\tsigned:0;\n"},
                  {path + "alloc/format",
                   "name: alloc\nID: 1434\n\tfield:u64 r;\toffset:24;\tsize:8;\tsigned:0;\n"},
                  {path + "free/format", "name: free\nID: 1435\n" + at +
                                             "\tfield:u64 iovad;\toffset:16;\tsize:8;\tsigned:0;\n"
                                             "\tfield:u64 pfn;\toffset:24;\tsize:8;\tsigned:0;\n"
                                             "\tfield:u64 size;\toffset:32;\tsize:8;\tsigned:0;\n"},
                  {"events/ftrace/kernel_stack/format",
                   linux_6_12().files.at("events/ftrace/kernel_stack/format")}}};
}

PageBytes call(std::string_view device, std::uint32_t pid) {
    PageBytes record = header_record(1433, pid);
    put(record, 8, std::uint64_t{0x1000});
    put(record, 16, std::uint32_t{0});
    put(record, 20, std::uint64_t{4096});
    put_text(record, 16, device);
    return record;
}

PageBytes returned(std::uint64_t start, std::uint32_t pid) {
    PageBytes record = header_record(1434, pid);
    put(record, 24, start);
    return record;
}

PageBytes freed(std::uint64_t allocator, std::uint64_t start) {
    PageBytes record = header_record(1435, 3);
    put(record, 16, allocator);
    put(record, 24, start >> 12);
    put(record, 32, std::uint64_t{1});
    return record;
}

TEST(TraceDecode, joins_the_entry_and_the_return_of_an_allocation) {
    Pipeline pipeline(linux_6_1_probes());
    PageWriter writer(1000);
    writer.record(1, call("0000:00:05.0", 7));
    writer.record(1, kernel_stack({1, 2, 0x1005, 0x7000, 0x8000}, 7)); // 1, 2: the probe's
    writer.record(1, call("0000:00:06.0", 8));
    writer.record(1, returned(0xf000, 7));
    writer.record(1, returned(0, 8));      // failed
    writer.record(1, returned(0xe000, 9)); // its call was before the first event
    pipeline.page(0, writer.page());
    EXPECT_EQ(pipeline.events(),
              std::vector<std::string>{
                  "allocate 0000:00:05.0 iommu_dma_alloc_iova [0xf000, +4K) stack=2"});
}

TEST(TraceDecode, finds_the_owner_of_a_freed_range_by_what_only_it_had) {
    Pipeline pipeline(linux_6_1_probes());
    PageWriter writer(1000);
    const auto allocate = [&](std::string_view device, std::uint64_t start) {
        writer.record(1, call(device, 7));
        writer.record(1, returned(start, 7));
    };
    allocate("a", 0xf000);
    allocate("b", 0xf000);
    allocate("b", 0xe000);
    writer.record(1, freed(0x200, 0xf000)); // a's or b's
    writer.record(1, freed(0x200, 0xe000)); // b's: so this is b's allocator
    writer.record(1, freed(0x200, 0xf000));
    writer.record(1, freed(0x100, 0xf000)); // now a's alone
    allocate("a", 0xd000);
    writer.record(1, freed(0x200, 0xd000)); // as many votes for a as for b
    pipeline.page(0, writer.page());
    std::vector<std::string> events = pipeline.events();
    std::erase_if(events, [](const std::string& each) { return each.starts_with("allocate"); });
    EXPECT_EQ(events, (std::vector<std::string>{"free free_iova_fast [0xf000, +4K)",
                                                "free b free_iova_fast [0xe000, +4K)",
                                                "free b free_iova_fast [0xf000, +4K)",
                                                "free a free_iova_fast [0xf000, +4K)",
                                                "free free_iova_fast [0xd000, +4K)"}));
}

/// Probes of the IOVA API, of Linux 6.16 and later: a mapping lies at an offset in its range.
TEST(TraceDecode, reads_links_and_their_end_by_probes) {
    const std::string path = "events/moat_164/";
    const std::string fields = "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n"
                               "\tfield:__data_loc char[] device;\toffset:16;\tsize:4;\tsigned:1;\n"
                               "\tfield:u64 addr;\toffset:20;\tsize:8;\tsigned:0;\n"
                               "\tfield:u64 size;\toffset:28;\tsize:8;\tsigned:0;\n";
    Pipeline pipeline({.files = {{path + "dma_iova_link/format",
                                  "name: dma_iova_link\nID: 1436\n" + fields +
                                      "\tfield:u64 offset;\toffset:36;\tsize:8;\tsigned:0;\n"
                                      "\tfield:u32 dir;\toffset:44;\tsize:4;\tsigned:0;\n"},
                                 {path + "dma_iova_destroy/format",
                                  "name: dma_iova_destroy\nID: 1437\n" + fields}}});
    const auto record = [](std::uint16_t id, std::uint64_t size, std::uint64_t offset) {
        PageBytes bytes = header_record(id, 7);
        put(bytes, 20, std::uint64_t{0xffff0000});
        put(bytes, 28, size);
        put(bytes, 36, offset);
        put(bytes, 44, std::uint32_t{2}); // from the device
        put_text(bytes, 16, "0000:00:05.0");
        return bytes;
    };
    PageWriter writer(1000);
    writer.record(1, record(1436, 512, 0x1200));
    writer.record(1, record(1437, 0x2000, 0));
    pipeline.page(0, writer.page());
    EXPECT_EQ(pipeline.events(),
              (std::vector<std::string>{"map 0000:00:05.0 dma_iova_link [0xffff1200, +512B) write",
                                        "unmap 0000:00:05.0 dma_iova_destroy [0xffff0000, +8K)"}));
}

TEST(TraceDecode, survives_cut_and_changed_pages) {
    std::mt19937_64 random(20261129);
    std::size_t events = 0;
    for (unsigned round = 0; round != 4000; ++round) {
        Pipeline pipeline(linux_6_12());
        for (const auto& [cpu, whole] : linux_6_12().pages) {
            PageBytes page = whole;
            for (unsigned change = 0; change != round % 8; ++change)
                page[random() % 1700] = static_cast<std::byte>(random());
            const std::size_t size = round % 3 == 0 ? random() % 4097 : page.size();
            // Exactly as long as it says, so that a sanitizer sees a read behind it.
            page.resize(size);
            page.shrink_to_fit();
            pipeline.page(cpu, page);
        }
        events += pipeline.events().size();
    }
    EXPECT_GT(events, 10'000U);
}

} // namespace
} // namespace moat::watch
