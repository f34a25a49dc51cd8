// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every mistake of a device or a driver, at each level and placement: who reports it, by design.
// The table is docs/design/dma.md's; the test prints it and compares it with the results.
#include "moat/core/text.hpp"

#include "space_system.hpp"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <iomanip>
#include <iostream>
#include <string>
#include <string_view>

namespace moat::tests {

namespace {

using namespace literals;
using namespace dma;

/// The buffer, and one that lies above it: 128 bytes inside a page each. At an edge of a page of
/// its own the last byte (right) or the first (left) touches the guard.
constexpr std::size_t size = 128;
constexpr std::size_t in_page = 256;
constexpr std::size_t stray = 16;

/// The start of a scene.
enum class Opening { two_buffers, nothing_mapped };

class Scene {
  public:
    Scene(const Options& options, bool bounded, Direction direction, Opening opening)
        : system_(options, bounded ? Finest::bytes : Finest::pages), direction_(direction) {
        std::ranges::fill(all_.bytes(), untouched);
        mapped_ = opening == Opening::two_buffers;
        if (!mapped_)
            return;
        const Iova one = map(0, "one");
        const Iova other = map(1, "other");
        at_ = std::min(one, other);
        above_ = std::max(one, other);
        first_is_low_ = at_ == one;
        page_ = at_.value() & ~std::uint64_t{4095};
    }

    [[nodiscard]] std::uint64_t at() const { return at_.value(); }

    [[nodiscard]] std::uint64_t end() const { return at_.value() + size; }

    [[nodiscard]] std::uint64_t page() const { return page_; }

    [[nodiscard]] std::uint64_t page_above() const { return above_.value() & ~std::uint64_t{4095}; }

    /// The device writes [from, to).
    void write(std::uint64_t from, std::uint64_t to) { system_.write(from, to - from); }

    void read(std::uint64_t from, std::uint64_t to) {
        std::vector<std::byte> into(to - from);
        system_.lane.read(Iova(from), into);
    }

    [[nodiscard]] Memory memory() { return memory(first_is_low_ ? 0 : 1); }

    void unmap() { unmap(ByteCount(size), direction_); }

    void unmap(ByteCount bytes, Direction direction) {
        note(system_.space->unmap(at_, bytes, direction));
    }

    void sync(ByteCount offset, ByteCount bytes) {
        note(system_.space->sync_for_cpu(at_, offset, bytes));
    }

    void poison(std::uint64_t from, std::uint64_t to) {
        note(system_.space->poison(Iova(from), ByteCount(to - from)));
    }

    void detach() { note(system_.iommu.detach(nic)); }

    void sync_for_device() { note(system_.space->sync_for_device(at_, 0_B, ByteCount(size))); }

    void map_again() {
        const Iova again = map(first_is_low_ ? 0 : 1, first_is_low_ ? "one" : "other");
        ASSERT_TRUE(system_.space->unmap(again, ByteCount(size), direction_));
    }

    void map_another() { (void)map(2, "next"); }

    void end_space() { system_.space.reset(); }

    /// Undoes the rest, so that every report arrives. Return: whether the upper neighbour is
    /// unchanged.
    [[nodiscard]] bool finish() {
        if (system_.space != nullptr) {
            if (mapped_)
                (void)system_.space->unmap(at_, ByteCount(size), direction_);
            if (above_ != at_)
                (void)system_.space->unmap(above_, ByteCount(size), direction_);
        }
        const auto page = all_.bytes().subspan(first_is_low_ ? 4096 : 0, 4096);
        return std::ranges::all_of(page, [](std::byte each) { return each == untouched; });
    }

    /// All reports, in order; "-" for none.
    [[nodiscard]] std::string heard(Level level) const {
        std::string all;
        const auto add = [&](const std::string& one) { all += (all.empty() ? "" : ", ") + one; };
        for (const fault::Diagnosis& each : system_.heard.faults)
            add(level == Level::guard ? "fault" : said(each));
        for (const DriverError& each : system_.heard.errors)
            add(said(each));
        if (refused_ && system_.heard.errors.empty())
            add("refused");
        return all.empty() ? "-" : all;
    }

  private:
    static constexpr std::byte untouched{0x33};

    [[nodiscard]] Memory memory(std::size_t page) {
        return Memory::own(all_.bytes().subspan(page * 4096 + in_page, size));
    }

    [[nodiscard]] Iova map(std::size_t page, std::string_view label) {
        return *system_.space->map(memory(page), direction_, label);
    }

    void note(const Result<void>& done) {
        refused_ = refused_ || !done;
        if (done)
            mapped_ = system_.space->stats().live_ranges == 2;
    }

    [[nodiscard]] std::string who(const fault::Mapping& mapping) const {
        if (mapping.range.empty())
            return "";
        if (mapping.label == "next")
            return " of next";
        return (mapping.label == "one") == first_is_low_ ? "" : " of neighbour";
    }

    [[nodiscard]] std::string said(const fault::Diagnosis& each) const {
        std::string text(name(each.kind).substr(4)); // without "dma-"
        if (each.kind == fault::Kind::out_of_bounds_right ||
            each.kind == fault::Kind::out_of_bounds_left || each.kind == fault::Kind::crossing)
            text += " " + std::to_string(each.bytes_outside);
        if (each.kind == fault::Kind::poisoned)
            text += " " + std::to_string(each.record.where.size().value());
        if (each.kind == fault::Kind::use_after_unmap)
            return text + who(each.past->mapping);
        return each.mapping ? text + who(*each.mapping) : text;
    }

    [[nodiscard]] std::string said(const DriverError& each) const {
        std::string text(name(each.kind));
        if (each.kind == DriverErrorKind::red_zone)
            text += " " + std::to_string(each.range.size().value());
        return text + who(each.past ? each.past->mapping : each.mapping);
    }

    Buffer all_{3 * 4096};
    System system_;
    Direction direction_;
    Iova at_;
    Iova above_;
    std::uint64_t page_ = 0;
    bool first_is_low_ = true;
    bool mapped_ = true;
    bool refused_ = false;
};

struct Column {
    std::string_view name;
    Level level;
    bool bounded;
    Placement placement;
};

constexpr std::array<Column, 8> columns = {{
    {"guard right", Level::guard, true, Placement::right},
    {"guard left", Level::guard, true, Placement::left},
    {"track right", Level::track, true, Placement::right},
    {"track left", Level::track, true, Placement::left},
    {"bytes right", Level::exact, true, Placement::right},
    {"bytes left", Level::exact, true, Placement::left},
    {"pages right", Level::exact, false, Placement::right},
    {"pages left", Level::exact, false, Placement::left},
}};

struct Violation {
    std::string_view name;
    Direction direction;
    ByteCount quarantine;
    void (*commit)(Scene& scene);
    /// The expected reports, by column. At levels guard and track the placement makes no
    /// difference.
    std::string_view guard;
    std::string_view track;
    std::array<std::string_view, 4> exact;
    Opening opening = Opening::two_buffers;

    [[nodiscard]] std::string_view expected(std::size_t column) const {
        return column < 2 ? guard : column < 4 ? track : exact[column - 4];
    }
};

constexpr std::array<std::string_view, 4> everywhere(std::string_view heard) {
    return {heard, heard, heard, heard};
}

const std::array violations = {
    Violation{"overrun within its page",
              Direction::from_device,
              0_B,
              [](Scene& scene) { scene.write(scene.end() - 1, scene.end() + stray); },
              "-",
              "-",
              {"buffer-overflow 16", "buffer-overflow 16", "buffer-overflow 16", "red-zone 16"}},
    Violation{"overrun past its page",
              Direction::from_device,
              0_B,
              [](Scene& scene) { scene.write(scene.end() - 1, scene.page() + 4096 + stray); },
              "fault",
              "buffer-overflow 16",
              {"buffer-overflow 16", "buffer-overflow 3984", "buffer-overflow 16",
               "buffer-overflow 16, red-zone 3968"}},
    Violation{"underrun within its page",
              Direction::from_device,
              0_B,
              [](Scene& scene) { scene.write(scene.at() - stray, scene.at()); },
              "-",
              "-",
              {"buffer-underflow 16", "buffer-underflow 16", "red-zone 16", "buffer-underflow 16"}},
    Violation{"underrun past its page", Direction::from_device, 0_B,
              [](Scene& scene) { scene.write(scene.page() - stray, scene.page()); }, "fault",
              "buffer-underflow 16", everywhere("buffer-underflow 16")},
    Violation{"overrun to the neighbour's page",
              Direction::from_device,
              0_B,
              [](Scene& scene) { scene.write(scene.end() - 1, scene.page_above() + stray); },
              "fault",
              "buffer-overflow 4112",
              {"buffer-overflow 4112", "buffer-crossing 8080", "buffer-overflow 4112",
               "buffer-underflow 4096 of neighbour, red-zone 3968"}},
    Violation{"write after unmap", Direction::from_device, 0_B,
              [](Scene& scene) {
                  scene.unmap();
                  scene.write(scene.at(), scene.at() + 1);
              },
              "fault", "use-after-unmap", everywhere("use-after-unmap")},
    Violation{"write after unmap and map", Direction::from_device, 0_B,
              [](Scene& scene) {
                  scene.unmap();
                  scene.map_another();
                  scene.write(scene.at(), scene.at() + 1);
              },
              "-", "-", everywhere("-")},
    Violation{"the same with a quarantine", Direction::from_device, 1_MiB,
              [](Scene& scene) {
                  scene.unmap();
                  scene.map_another();
                  scene.write(scene.at(), scene.at() + 1);
              },
              "fault", "use-after-unmap", everywhere("use-after-unmap")},
    Violation{"write to what is read-only", Direction::to_device, 0_B,
              [](Scene& scene) { scene.write(scene.at(), scene.end()); }, "fault", "permission",
              everywhere("permission")},
    Violation{"read of what is write-only", Direction::from_device, 0_B,
              [](Scene& scene) { scene.read(scene.at(), scene.end()); }, "fault", "permission",
              everywhere("permission")},
    Violation{"wild write", Direction::from_device, 0_B,
              [](Scene& scene) {
                  const std::uint64_t far = scene.at() ^ (std::uint64_t{1} << 40);
                  scene.write(far, far + 8);
              },
              "fault", "wild-access", everywhere("wild-access")},
    Violation{"write before anything was mapped", Direction::from_device, 0_B,
              [](Scene& scene) { scene.write(1 << 20, (1 << 20) + 8); }, "fault", "never-mapped",
              everywhere("never-mapped"), Opening::nothing_mapped},
    Violation{"write of a device that is detached", Direction::from_device, 0_B,
              [](Scene& scene) {
                  scene.detach();
                  scene.write(scene.at(), scene.end());
              },
              "fault", "device-not-attached", everywhere("device-not-attached")},
    Violation{"write to what is poisoned",
              Direction::from_device,
              0_B,
              [](Scene& scene) {
                  scene.poison(scene.at() + 32, scene.at() + 64);
                  scene.write(scene.at(), scene.at() + 32);
                  scene.write(scene.at() + 40, scene.at() + 40 + stray);
              },
              "refused",
              "refused",
              {"use-after-poison 16", "use-after-poison 16", "refused", "refused"}},
    Violation{"the CPU writes meanwhile", Direction::to_device, 0_B,
              [](Scene& scene) { scene.memory().bytes[5] ^= std::byte{1}; }, "-", "-",
              everywhere("cpu-wrote")},
    Violation{"double unmap", Direction::from_device, 0_B,
              [](Scene& scene) {
                  scene.unmap();
                  scene.unmap();
              },
              "refused", "not-mapped", everywhere("not-mapped")},
    Violation{"unmap of another size", Direction::from_device, 0_B,
              [](Scene& scene) { scene.unmap(64_B, Direction::from_device); }, "-", "wrong-size",
              everywhere("wrong-size")},
    Violation{"unmap of another direction", Direction::from_device, 0_B,
              [](Scene& scene) { scene.unmap(ByteCount(size), Direction::to_device); }, "-",
              "wrong-direction", everywhere("wrong-direction")},
    Violation{"sync outside", Direction::from_device, 0_B,
              [](Scene& scene) { scene.sync(100_B, 64_B); }, "-", "sync-outside",
              everywhere("sync-outside")},
    Violation{"a buffer goes back unlooked at", Direction::from_device, 0_B,
              [](Scene& scene) {
                  scene.write(scene.at(), scene.end());
                  scene.sync_for_device();
              },
              "-", "-", everywhere("missing-sync")},
    Violation{"a second mapping of the memory", Direction::from_device, 0_B,
              [](Scene& scene) { scene.map_again(); }, "-", "-", everywhere("double-mapping")},
    Violation{"leak of both", Direction::from_device, 0_B, [](Scene& scene) { scene.end_space(); },
              "-", "leak, leak of neighbour", everywhere("leak, leak of neighbour")},
};

class Violations : public testing::TestWithParam<std::size_t> {};

TEST_P(Violations, are_heard_of_as_designed_and_hurt_no_neighbour) {
    const Column& column = columns[GetParam()];
    std::cout << column.name << '\n';
    for (const Violation& each : violations) {
        Scene scene({.level = column.level,
                     .placement = column.placement,
                     .quarantine = each.quarantine,
                     .cpu = CpuWatch::off},
                    column.bounded, each.direction, each.opening);
        each.commit(scene);
        EXPECT_TRUE(scene.finish()) << each.name << ": the neighbour's bytes";
        const std::string heard = scene.heard(column.level);
        std::cout << "  " << std::left << std::setw(36) << each.name << heard << '\n';
        EXPECT_EQ(heard, each.expected(GetParam())) << each.name << ", " << column.name;
    }
}

std::string column_name(const testing::TestParamInfo<std::size_t>& each) {
    std::string name(columns[each.param].name);
    std::ranges::replace(name, ' ', '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(Columns, Violations, testing::Range<std::size_t>(0, columns.size()),
                         column_name);

} // namespace

} // namespace moat::tests
