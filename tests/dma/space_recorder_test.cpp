// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A space's recording: every mapping and fault, at every level, and nothing that failed.
#include "dma/space_recorder.hpp"
#include "fault/recordings.hpp"
#include "space_system.hpp"

#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>

namespace moat::tests {

namespace {

using namespace literals;
using namespace dma;
using fault::DmaEvent;

constexpr auto test_stack = [](std::span<std::uintptr_t> frames) -> std::size_t {
    frames[0] = 0x1234;
    return 1;
};

constexpr auto test_names = [](std::uintptr_t address, fault::FrameSink sink) {
    sink({.address = address, .function = "driver_map"});
};

class RecordedSystem {
  public:
    explicit RecordedSystem(const Options& options, CaptureStack capture = nullptr)
        : recorder_(SpaceRecorder::create(name_, errors, test_names).value()),
          domain_(empty_table(tables_), {}),
          space(*SoftSpace::create(domain_, {.options = options,
                                             .pages = own_pages(),
                                             .recorder = recorder_->recorder("nic", capture)})) {}

    ~RecordedSystem() { (void)std::remove(name_.c_str()); }

    RecordedSystem(const RecordedSystem&) = delete;
    RecordedSystem& operator=(const RecordedSystem&) = delete;

    [[nodiscard]] std::vector<fault::OwnedEvent> events() {
        EXPECT_TRUE(recorder_->flush());
        std::ifstream in(name_, std::ios::binary);
        file_.assign(std::istreambuf_iterator<char>(in), {});
        reader_.emplace(fault::read_from(file_));
        std::vector<fault::OwnedEvent> all;
        auto event = reader_->next();
        for (; event && *event != nullptr; event = reader_->next())
            all.emplace_back(**event);
        EXPECT_TRUE(event) << event.error();
        return all;
    }

    /// After `events`.
    [[nodiscard]] const fault::RecordingReader& reader() const { return *reader_; }

    std::ostringstream errors;

  private:
    const std::string name_ = testing::TempDir() + "space_recorder_test." +
                              std::to_string(reinterpret_cast<std::uintptr_t>(this));
    std::unique_ptr<SpaceRecorder> recorder_;
    OwnTables tables_;
    SoftDomain domain_;
    fault::FileBytes file_;
    std::optional<fault::RecordingReader> reader_;

  public:
    std::unique_ptr<SoftSpace> space;
};

class RecordedLevels : public testing::TestWithParam<Options> {};

TEST_P(RecordedLevels, hold_every_mapping_and_fault_in_order) {
    RecordedSystem system(GetParam());
    Buffer buffer(8192);
    const Memory memory = Memory::own(buffer.bytes().subspan(0, 4096));
    const std::array pieces = {memory, Memory::own(buffer.bytes().subspan(4096, 4096))};
    std::array<Segment, 2> segments;
    SoftSpace& space = *system.space;
    const Iova one = *space.map(memory, Direction::from_device, "ring");
    space.fault(
        fault::exact_record(nic, fault::Access::write, {one, 1_B}, fault::Reason::not_present));
    EXPECT_FALSE(space.map(Memory(), Direction::from_device, "nothing"));
    EXPECT_FALSE(space.unmap(Iova(one.value() + (1 << 30)), 4096_B, Direction::from_device));
    ASSERT_TRUE(space.unmap(one, 4096_B, Direction::from_device));
    const MappedList list = *space.map_list(pieces, Direction::to_device, segments, {}, "list");
    const Iova coherent = *space.map_coherent(memory, "shared");
    ASSERT_TRUE(space.unmap(list.start, list.size, Direction::to_device));
    ASSERT_TRUE(space.unmap(coherent, 4096_B, Direction::bidirectional));

    const auto events = system.events();
    using Kind = DmaEvent::Kind;
    const std::vector<Kind> expected = {Kind::device, Kind::map, Kind::fault, Kind::unmap,
                                        Kind::map,    Kind::map, Kind::unmap, Kind::unmap};
    ASSERT_EQ(events.size(), expected.size());
    for (std::size_t index = 0; index != events.size(); ++index) {
        EXPECT_EQ(events[index].event.kind, expected[index]) << index;
        EXPECT_EQ(events[index].device, "nic");
        EXPECT_TRUE(index == 0 || events[index].event.time_ns >= events[index - 1].event.time_ns);
    }
    EXPECT_EQ(events[1].event.range, IovaRange(one, 4096_B));
    EXPECT_EQ(events[1].call, "ring");
    EXPECT_EQ(events[1].event.physical, memory.physical.value());
    EXPECT_EQ(events[1].event.allows, fault::Allows::write);
    EXPECT_EQ(events[2].event.record.where.start(), one);
    EXPECT_EQ(events[3].event.range, IovaRange(one, 4096_B));
    EXPECT_EQ(events[4].event.range, IovaRange(list.start, list.size));
    EXPECT_EQ(events[5].call, "shared");
    EXPECT_EQ(system.errors.str(), "");
}

INSTANTIATE_TEST_SUITE_P(Space, RecordedLevels,
                         testing::Values(Options{.level = Level::guard},
                                         Options{.level = Level::track},
                                         Options{.level = Level::exact}, Options{.sample = 1},
                                         Options{.sample = 1000000}));

TEST(SpaceRecorder, takes_stacks_and_names_their_functions) {
    RecordedSystem system({.level = Level::guard}, test_stack);
    Buffer buffer(4096);
    ASSERT_TRUE(system.space->map(Memory::own(buffer.bytes()), Direction::to_device));
    const auto events = system.events();
    ASSERT_EQ(events.size(), 2U);
    EXPECT_EQ(events[1].stack, std::vector<std::uintptr_t>{0x1234});
    std::string name;
    const auto note = [&](const StackFrame& frame) { name = frame.function; };
    system.reader().symbolise(0x1234, note);
    EXPECT_EQ(name, "driver_map");
}

TEST(SpaceRecorder, returns_that_its_file_cannot_be_created) {
    std::ostringstream errors;
    const auto recorder = SpaceRecorder::create("/nowhere/recording", errors);
    ASSERT_FALSE(recorder);
    EXPECT_EQ(recorder.error().code(), ErrorCode::io);
}

TEST(SpaceRecorder, reports_once_that_its_file_cannot_be_written) {
    std::ostringstream errors;
    const auto recorder = SpaceRecorder::create("/dev/full", errors).value();
    const Recorder use = recorder->recorder("nic");
    use.unmap(use.context, {Iova(4096), 4096_B});
    EXPECT_EQ(recorder->flush().error().code(), ErrorCode::io);
    use.unmap(use.context, {Iova(4096), 4096_B});
    EXPECT_EQ(recorder->flush().error().code(), ErrorCode::io);
    EXPECT_TRUE(errors.str().starts_with("moat: the recording ends here: input / output: "));
    EXPECT_EQ(std::ranges::count(errors.str(), '\n'), 1);
}

} // namespace

} // namespace moat::tests
