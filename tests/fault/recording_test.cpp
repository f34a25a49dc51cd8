// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Recordings: what is written is read, also from a file that is cut, growing or hostile.
#include "fault/recording.hpp"
#include "fault/recording_format.hpp"
#include "mappings.hpp"
#include "recordings.hpp"

#include <array>
#include <gtest/gtest.h>
#include <random>

namespace moat::fault {

namespace {

class RandomEvents {
  public:
    explicit RandomEvents(std::uint64_t seed) : random_(seed) {}

    [[nodiscard]] OwnedEvent next() {
        OwnedEvent made;
        DmaEvent& event = made.event;
        event.kind = static_cast<DmaEvent::Kind>(random_() % 12);
        event.time_ns = time_ += random_() % 4 == 0 ? number() : random_() % 4000;
        event.thread = static_cast<std::uint32_t>(random_() % 5);
        event.range = range();
        if (flip())
            event.physical = number();
        event.allows = static_cast<Allows>(random_() % 4);
        event.count = flip() ? 0 : number();
        if (flip())
            event.group = static_cast<std::uint32_t>(random_());
        event.translated = flip();
        if (flip())
            event.record = record();
        made.task = text("kworker/");
        made.device = text("0000:00:0");
        made.call = text("dma_map_");
        made.driver = text("nvme");
        for (std::uint64_t depth = flip() ? 0 : random_() % 9; depth != 0; --depth)
            made.stack.push_back(0xffffffff81000000 + random_() % 32 * 0x1234);
        return made;
    }

    /// Any magnitude is as likely as any other.
    [[nodiscard]] std::uint64_t number() { return random_() >> random_() % 64; }

  private:
    [[nodiscard]] bool flip() { return random_() % 2 == 0; }

    [[nodiscard]] std::string text(const std::string& start) {
        const std::uint64_t which = random_() % 5;
        return which == 0 ? "" : start + std::to_string(which);
    }

    [[nodiscard]] IovaRange range() {
        const std::uint64_t start = flip() ? random_() % 64 << 12 : number();
        const std::uint64_t size = flip() ? random_() % 4 << 12 : number();
        return IovaRange::make(Iova(start), ByteCount(size)).value_or(IovaRange());
    }

    [[nodiscard]] Record record() {
        const std::array<Source, 6> sources = {
            Source(),
            Source::requester(static_cast<std::uint16_t>(random_())),
            Source::requester(0x123, static_cast<std::uint16_t>(random_())),
            Source::stream(static_cast<std::uint32_t>(random_())),
            Source::endpoint(7),
            Source::device_id(0xffffffff)};
        Record made = {.source = sources.at(random_() % sources.size()),
                       .access = static_cast<Access>(random_() % 4),
                       .precision = static_cast<Precision>(random_() % 4),
                       .reason = static_cast<Reason>(random_() % 15),
                       .where = range(),
                       .suppressed = number()};
        if (flip())
            made.domain = static_cast<std::uint32_t>(random_());
        if (flip())
            made.pasid = static_cast<std::uint32_t>(random_());
        if (flip())
            made.code = number();
        if (flip())
            made.time_ns = number();
        return made;
    }

    std::mt19937_64 random_;
    std::uint64_t time_ = 0;
};

[[nodiscard]] std::vector<OwnedEvent> random_events(std::uint64_t seed, std::size_t count) {
    RandomEvents random(seed);
    std::vector<OwnedEvent> events;
    while (events.size() != count)
        events.push_back(random.next());
    return events;
}

/// Every event of the file. The reader ends at the end of the file, or with an error.
[[nodiscard]] std::size_t count_events(RecordingReader& reader) {
    std::size_t count = 0;
    for (auto event = reader.next(); event && *event != nullptr; event = reader.next())
        ++count;
    return count;
}

constexpr std::uintptr_t hidden = 0x1003;

/// Kernels symbolise to a function, a file and a module.
constexpr auto test_symbols = [](std::uintptr_t address, FrameSink sink) {
    if (address == hidden)
        return;
    if (address % 2 == 0)
        return sink({.address = address});
    sink({.address = address, .function = "inlined", .file = "nvme.h", .line = 12});
    sink({.address = address, .function = "nvme_prep_rq", .module = "nvme"});
};

[[nodiscard]] std::vector<StackFrame> frames_of(const RecordingReader& reader,
                                                std::uintptr_t address) {
    std::vector<StackFrame> frames;
    const auto add = [&](const StackFrame& frame) { frames.push_back(frame); };
    reader.symbolise(address, add);
    return frames;
}

TEST(Recording, reads_back_every_kind_and_field) {
    for (std::uint64_t seed = 1; seed != 9; ++seed) {
        SCOPED_TRACE(seed);
        const auto events = random_events(seed, 3000);
        const FileBytes file = recording_of(events);
        RecordingReader reader(read_from(file, 1 + seed * 100));
        for (const OwnedEvent& each : events) {
            const auto event = reader.next();
            ASSERT_TRUE(event) << event.error();
            ASSERT_NE(*event, nullptr);
            ASSERT_TRUE(same(**event, each.view())) << name(each.event.kind);
        }
        const auto end = reader.next();
        ASSERT_TRUE(end) << end.error();
        EXPECT_EQ(*end, nullptr);
        EXPECT_EQ(reader.offset(), file.size());
        EXPECT_EQ(reader.incomplete_bytes(), 0U);
    }
}

TEST(Recording, keeps_every_whole_record_before_a_cut_at_any_byte) {
    const auto events = random_events(20261129, 150);
    FileBytes file;
    std::vector<std::size_t> ends; // of each event
    RecordingWriter writer(write_to(file), test_symbols);
    for (const OwnedEvent& each : events) {
        ASSERT_TRUE(writer.add(each.view()));
        ASSERT_TRUE(writer.flush());
        ends.push_back(file.size());
    }
    ASSERT_GT(file.size(), 5000U);
    for (std::size_t cut = 0; cut <= file.size(); ++cut) {
        const FileBytes part(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(cut));
        RecordingReader reader(read_from(part));
        const auto whole = std::ranges::upper_bound(ends, cut) - ends.begin();
        ASSERT_EQ(count_events(reader), static_cast<std::size_t>(whole)) << cut;
        const auto end = reader.next();
        ASSERT_TRUE(end) << cut << ": " << end.error();
        ASSERT_EQ(reader.offset() + reader.incomplete_bytes(), cut);
    }
}

TEST(Recording, is_read_while_it_is_written) {
    const auto events = random_events(7, 200);
    const FileBytes whole = recording_of(events, test_symbols);
    FileBytes file;
    RecordingReader reader(read_from(file));
    std::size_t found = 0;
    for (const std::uint8_t byte : whole) {
        file.push_back(byte);
        for (auto event = reader.next();; event = reader.next()) {
            ASSERT_TRUE(event) << event.error();
            if (*event == nullptr)
                break;
            ASSERT_TRUE(same(**event, events[found].view())) << found;
            ++found;
        }
    }
    EXPECT_EQ(found, events.size());
}

TEST(Recording, holds_the_symbols_of_its_stacks) {
    OwnedEvent event;
    event.stack = {hidden, 0x1001, 0x1002, 0x1001};
    const FileBytes file = recording_of({event}, test_symbols);
    RecordingReader reader(read_from(file));
    EXPECT_EQ(count_events(reader), 1U);
    const auto known = frames_of(reader, 0x1001);
    ASSERT_EQ(known.size(), 2U);
    EXPECT_EQ(known[0].function, "inlined");
    EXPECT_EQ(known[0].file, "nvme.h");
    EXPECT_EQ(known[0].line, 12U);
    EXPECT_EQ(known[1].function, "nvme_prep_rq");
    EXPECT_EQ(known[1].module, "nvme");
    const auto unknown = frames_of(reader, 0x1002);
    ASSERT_EQ(unknown.size(), 1U);
    EXPECT_EQ(unknown[0].address, 0x1002U);
    EXPECT_EQ(unknown[0].function, "");
    EXPECT_TRUE(frames_of(reader, hidden).empty());
}

/// A driver with 128 mappings at a time, each unmapped a millisecond after it was mapped.
TEST(Recording, takes_less_than_24_bytes_for_a_map_and_its_unmap) {
    FileBytes file;
    RecordingWriter writer(write_to(file));
    std::mt19937_64 random(3);
    const std::array<std::uintptr_t, 4> stack = {0xffffffff81234567, 0xffffffff81345678,
                                                 0xffffffff81456789, 0xffffffff8156789a};
    DmaEvent map = {
        .task = "kworker/0:1H", .device = "0000:00:04.0", .call = "dma_map_page", .stack = stack};
    DmaEvent unmap = {.kind = DmaEvent::Kind::unmap,
                      .task = "kworker/0:1H",
                      .device = "0000:00:04.0",
                      .call = "dma_unmap_page"};
    std::uint64_t time = 1'000'000'000'000;
    std::uint64_t before = 0;
    constexpr std::uint64_t warm = 3000;
    constexpr std::uint64_t counted = 1000;
    for (std::uint64_t pair = 0; pair != warm + counted; ++pair) {
        if (pair == warm)
            before = writer.size();
        map.time_ns = time += 2000 + random() % 4000;
        map.thread = 100 + static_cast<std::uint32_t>(random() % 4);
        map.range = bytes(0xfffff000 - (pair % 512 << 12), 4096);
        map.physical = 0x100000000 + (random() % 0x400000 << 12);
        ASSERT_TRUE(writer.add(map));
        unmap.time_ns = time += 2000 + random() % 4000;
        unmap.thread = 100 + static_cast<std::uint32_t>(random() % 4);
        unmap.range = bytes(0xfffff000 - ((pair + 384) % 512 << 12), 4096);
        ASSERT_TRUE(writer.add(unmap));
    }
    const double bytes_a_pair =
        static_cast<double>(writer.size() - before) / static_cast<double>(counted);
    RecordProperty("bytes_a_pair", std::to_string(bytes_a_pair));
    EXPECT_LE(bytes_a_pair, 24);
    EXPECT_GE(bytes_a_pair, 12);
}

/// A change of these bytes is a new version of the format.
TEST(Recording, keeps_its_format) {
    OwnedEvent map(DmaEvent{.time_ns = 1000,
                            .thread = 7,
                            .task = "t",
                            .device = "d",
                            .call = "m",
                            .range = bytes(0x1000, 0x200),
                            .physical = 0x5000,
                            .allows = Allows::write});
    map.stack = {0x11};
    OwnedEvent unmap(DmaEvent{.kind = DmaEvent::Kind::unmap,
                              .time_ns = 1500,
                              .device = "d",
                              .range = bytes(0x1000, 0x200),
                              .group = 3});
    OwnedEvent fault(DmaEvent{.kind = DmaEvent::Kind::fault,
                              .time_ns = 1400,
                              .record = {.source = Source::requester(0x20, 1),
                                         .access = Access::write,
                                         .precision = Precision::page,
                                         .reason = Reason::not_present,
                                         .where = bytes(0x2000, 0x1000),
                                         .code = 5},
                              .count = 2,
                              .translated = false});
    const FileBytes file = recording_of({map, unmap, fault}, test_symbols);
    std::string hex;
    for (const std::uint8_t each : file)
        hex += hexadecimal(0x100U | each).substr(3);
    EXPECT_EQ(hex, "6d6f617472656301" // "moatrec", version 1
                   "03000164e5"       // texts: "d", "m", "t"
                   "0300016d18"
                   "03000174f1"
                   "2801110207696e6c696e6564066e766d652e68000c" // the frames of 0x11
                   "0c6e766d655f707265705f727100046e766d650056"
                   "0302012288"               // a stack
                   "0a0301030207010002030183" // a site and its event: map
                   "0b08d00f008040800480c002de"
                   "0b0302110300010000000003e7" // unmap
                   "0409e8070159"
                   "0a03062c0300000000000066" // fault
                   "110ac7010209012002030180408020000105dd");
}

TEST(Recording, returns_errors_of_its_file_and_writes_no_more) {
    FileBytes file;
    std::size_t writes_left = 2;
    RecordingWriter writer([&](std::span<const std::uint8_t> bytes) -> Result<void> {
        if (writes_left-- == 0)
            return fail(ErrorCode::io, "the disk is full");
        return write_to(file)(bytes);
    });
    const auto events = random_events(5, 4);
    for (std::size_t index = 0; index != 2; ++index) {
        ASSERT_TRUE(writer.add(events[index].view()));
        ASSERT_TRUE(writer.flush());
    }
    ASSERT_TRUE(writer.add(events[2].view()));
    EXPECT_EQ(writer.flush().error().code(), ErrorCode::io);
    EXPECT_EQ(writer.add(events[3].view()).error().code(), ErrorCode::io);
    EXPECT_EQ(writer.flush().error().code(), ErrorCode::io);
    RecordingReader reader(read_from(file));
    EXPECT_EQ(count_events(reader), 2U);
}

TEST(Recording, refuses_an_event_that_exceeds_a_limit_and_records_the_next) {
    FileBytes file;
    RecordingWriter writer(write_to(file));
    const std::string longest(recording::most_text_bytes, 'x');
    const std::string too_long = longest + "x";
    const std::vector<std::uintptr_t> too_deep(recording::most_stack + 1, 0x1001);
    EXPECT_EQ(writer.add({.call = too_long}).error().code(), ErrorCode::limit);
    EXPECT_EQ(writer.add({.stack = too_deep}).error().code(), ErrorCode::limit);
    EXPECT_TRUE(writer.add({.call = longest, .stack = StackView(too_deep).subspan(1)}));
    ASSERT_TRUE(writer.flush());
    RecordingReader reader(read_from(file));
    const auto event = reader.next();
    ASSERT_TRUE(event && *event != nullptr);
    EXPECT_EQ((*event)->call, longest);
    EXPECT_EQ((*event)->stack.size(), recording::most_stack);
}

TEST(Recording, forgets_definitions_before_a_table_is_full) {
    FileBytes file;
    RecordingWriter writer(write_to(file));
    const std::size_t count = recording::most_texts + 1000;
    for (std::size_t index = 0; index != count; ++index) {
        const std::string call = "call " + std::to_string(index);
        ASSERT_TRUE(writer.add({.call = call}));
    }
    ASSERT_TRUE(writer.flush());
    RecordingReader reader(read_from(file));
    for (std::size_t index = 0; index != count; ++index) {
        const auto event = reader.next();
        ASSERT_TRUE(event) << event.error();
        ASSERT_NE(*event, nullptr);
        ASSERT_EQ((*event)->call, "call " + std::to_string(index));
    }
}

/// A file of one record, with a right check byte.
[[nodiscard]] FileBytes hostile(const std::vector<std::uint8_t>& body) {
    FileBytes file;
    recording::Check check;
    recording::Encoder length;
    length.number(body.size());
    for (const auto& part :
         {std::vector<std::uint8_t>(recording::header.begin(), recording::header.end()),
          std::vector<std::uint8_t>(length.bytes().begin(), length.bytes().end()), body})
        for (const std::uint8_t each : part) {
            file.push_back(each);
            check.add(each);
        }
    file.push_back(check.byte());
    return file;
}

TEST(Recording, refuses_impossible_numbers_with_their_offset) {
    const std::vector<std::vector<std::uint8_t>> bodies = {
        {0, 0},                                        // an empty text
        {0, 5, 'a'},                                   // a text that ends after its record
        {0, 1, 'a', 'b'},                              // bytes after a text
        {0, 0xff, 0xff, 0xff, 0xff, 0x0f},             // a text of 4 GiB
        {1, 0x11, 17},                                 // a symbol of 17 frames
        {2, 0},                                        // an empty stack
        {2, 0x81, 0x02},                               // a stack of 257 addresses
        {3, 12, 0, 0, 0, 0, 0, 0, 0, 0},               // an unknown kind
        {3, 1, 64, 0, 0, 0, 0, 0, 0, 0},               // an unknown field
        {3, 1, 0, 4, 0, 0, 0, 0, 0, 0},                // an unknown permission
        {3, 1, 0, 0, 0, 1, 0, 0, 0, 0},                // an undefined text
        {3, 1, 0, 0, 0, 0, 0, 0, 0, 1},                // an undefined stack
        {3, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0}, // a thread above 2^32
        {4, 0},                                        // forget with a body
        {5},                                           // an unknown tag
        {8},                                           // an undefined site
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, // a number above 2^64
    };
    for (std::size_t index = 0; index != bodies.size(); ++index) {
        const FileBytes file = hostile(bodies[index]);
        RecordingReader reader(read_from(file));
        const auto event = reader.next();
        ASSERT_FALSE(event) << index;
        EXPECT_EQ(event.error().code(), ErrorCode::mismatch) << index;
        ASSERT_NE(event.error().find("offset"), nullptr) << index;
        EXPECT_EQ(*event.error().find("offset"), recording::header.size());
        EXPECT_NE(event.error().find("value"), nullptr) << index;
        EXPECT_EQ(reader.offset(), recording::header.size());
    }
}

TEST(Recording, refuses_what_is_no_recording) {
    const auto error_of = [](FileBytes file) {
        RecordingReader reader(read_from(file));
        const auto event = reader.next();
        return event ? std::string() : to_string(event.error());
    };
    EXPECT_EQ(error_of({'m', 'o', 'x'}),
              "mismatch: this is no recording of moat (offset=0x2, value=0x78)");
    EXPECT_EQ(error_of({'m', 'o', 'a', 't', 'r', 'e', 'c', 9}),
              "unsupported: a newer moat wrote this recording (version=0x9, supported=0x1)");
    FileBytes file(recording::header.begin(), recording::header.end());
    file.insert(file.end(), 64, 0); // as a file system leaves after power is lost
    EXPECT_EQ(error_of(file), "mismatch: a record has an impossible length (offset=0x8, "
                              "value=0x0, most=0x10000)");
    file = recording_of({OwnedEvent()});
    file.back() ^= 1;
    EXPECT_NE(error_of(file).find("a record's check byte is wrong (offset="), std::string::npos);
}

TEST(Recording, survives_changed_bytes) {
    const FileBytes whole = recording_of(random_events(11, 300), test_symbols);
    std::mt19937_64 random(42);
    std::size_t refused = 0;
    for (int round = 0; round != 2000; ++round) {
        FileBytes file = whole;
        for (std::uint64_t changes = 1 + random() % 3; changes != 0; --changes)
            file[random() % file.size()] = static_cast<std::uint8_t>(random());
        RecordingReader reader(read_from(file));
        EXPECT_LE(count_events(reader), 300U);
        refused += !reader.next();
    }
    EXPECT_GT(refused, 1950U); // the others changed a byte to what it was, or a length at the end
}

} // namespace

} // namespace moat::fault
