// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mm: AddressSpace, the walker and its reports, PhysicalMemory, SharedRam. Programmer's errors by
// contract, so not rows: the layout of PhysicalMemory (fixed by the configuration before anything
// runs), reading a table from memory without tables (the bug that this room exists to find), and
// `hold` and `drop` of a frame without a reference.
#include "moat/mm/readers/pagemap_scan.hpp"
#include "moat/mm/readers/proc.hpp"
#include "moat/mm/walker.hpp"

#include "contract.hpp"
#include "mm/fixture.hpp"

#include <array>
#include <gtest/gtest.h>
#include <sstream>

namespace moat::tests {
namespace {

using mm::VmaKind;
using mm::tests::World;
using Mapping = mm::Mapping<RealSync>;

constexpr std::uint64_t base = 1ULL << 32;
constexpr std::uint64_t mib = 1 << 20;

/// A world with four VMAs: anonymous, explicit huge pages, a BAR's, and shared RAM; the first page
/// of each is faulted in. Recreated after each call that succeeded.
class Process {
  public:
    Process() { reset(); }

    void reset() {
        if (world_)
            clear();
        world_.reset();
        for (auto& slot : slots_)
            slot.store(0, std::memory_order_relaxed);
        world_ = std::make_unique<World>();
        std::uint64_t at = base;
        for (const Mapping& each :
             {Mapping{}, Mapping{.kind = VmaKind::huge, .largest_leaf_lg2 = 21},
              world_->bar_mapping(), Mapping{.kind = VmaKind::shared, .shared = &shared}}) {
            const std::uint64_t size = each.kind == VmaKind::shared ? mib : 4 * mib;
            EXPECT_TRUE(space().map(mm::tests::at(at, size), each));
            EXPECT_TRUE(space().fault(VirtualAddress(at), mm::Access::write));
            at += 4 * mib;
        }
    }

    ~Process() { clear(); }

    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    [[nodiscard]] World& world() const { return *world_; }

    [[nodiscard]] mm::tests::Space& space() const { return world_->space; }

    void clear() {
        EXPECT_TRUE(space().unmap(VirtualRange(VirtualAddress(0), ByteCount(1ULL << 47))));
        shared.clear(world_->memory);
    }

    /// The mapped memory, however it is divided into VMAs and leaves.
    [[nodiscard]] std::string state() const {
        std::ostringstream text;
        std::uint64_t last = 0;
        for (auto vma = space().find_from(VirtualAddress(0)); vma;
             vma = space().find_from(vma->range.end())) {
            if (vma->range.start().value() != last)
                text << ' ' << vma->range.start() << ':';
            text << static_cast<int>(vma->mapping.kind);
            last = vma->range.end().value();
        }
        return text.str();
    }

  private:
    std::array<mm::SharedRam<RealSync>::Slot, mib / 4096> slots_{};

  public:
    mm::SharedRam<RealSync> shared{slots_};

  private:
    std::unique_ptr<World> world_;
};

using Call = std::function<Outcome(Process&, VirtualRange, Values)>;

/// A function of a range; `more` are the numbers that follow start and size.
Row range_row(const std::shared_ptr<Process>& process, const char* name, std::uint64_t start,
              std::vector<Argument> more, Call call, std::uint64_t size = 2 * mib) {
    std::vector<Argument> arguments = {{.name = "start", .good = start},
                                       {.name = "size", .good = size}};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return {.name = name,
            .arguments = arguments,
            .call = [=](Values v) -> Outcome {
                const auto range = VirtualRange::make(VirtualAddress(v[0]), ByteCount(v[1]));
                return range ? call(*process, *range, v) : outcome(range);
            },
            .state = [=] { return process->state(); }};
}

std::vector<Row> maps() {
    const auto process = std::make_shared<Process>();
    const std::uint64_t hole = base + 64 * mib;
    const Argument permissions = {.name = "permissions", .good = 3, .bits = 32};
    const Argument leaf = {.name = "largest_leaf_lg2", .good = 21, .bits = 32, .more = {12, 30}};
    const Argument offset = {.name = "offset", .good = 0};
    // Uses a mapping before it is unmapped: faults must work on all that map() accepted.
    const auto map = [](Process& p, VirtualRange range, const Mapping& mapping) {
        const Result<void> done = p.space().map(range, mapping);
        if (done)
            for (const mm::Access access : {mm::Access::read, mm::Access::write}) {
                (void)p.space().fault(range.start(), access);
                (void)p.space().fault(range.last(), access);
            }
        return reset_after(p, done);
    };
    return {
        range_row(process, "map, anonymous", hole,
                  {permissions,
                   leaf,
                   {.name = "nodes", .good = 1, .bits = 32},
                   {.name = "mode", .good = 0, .bits = 2}},
                  [=](Process& p, VirtualRange range, Values v) {
                      return map(p, range,
                                 {.permissions = static_cast<Attributes>(v[2]),
                                  .largest_leaf_lg2 = static_cast<unsigned>(v[3]),
                                  .nodes = {static_cast<mm::NodeMode>(v[5]),
                                            static_cast<std::uint32_t>(v[4])}});
                  }),
        range_row(process, "map, huge", hole,
                  {{.name = "leaf_lg2", .good = 21, .bits = 32, .named = false}},
                  [=](Process& p, VirtualRange range, Values v) {
                      return map(
                          p, range,
                          {.kind = VmaKind::huge, .largest_leaf_lg2 = static_cast<unsigned>(v[2])});
                  }),
        range_row(process, "map, device", hole, {offset, leaf},
                  [=](Process& p, VirtualRange range, Values v) {
                      Mapping mapping = p.world().bar_mapping(v[2]);
                      mapping.largest_leaf_lg2 = static_cast<unsigned>(v[3]);
                      return map(p, range, mapping);
                  }),
        range_row(
            process, "map, shared", hole, {{.name = "offset", .good = 0}},
            [=](Process& p, VirtualRange range, Values v) {
                return map(
                    p, range,
                    {.kind = VmaKind::shared, .shared = &p.shared, .offset = ByteCount(v[2])});
            },
            mib),
        {.name = "map, kind",
         .arguments = {{.name = "kind", .good = 0, .bits = 2, .named = false},
                       {.name = "shows", .good = 0, .bits = 2}},
         .call =
             [=](Values v) {
                 Mapping mapping = {.kind = static_cast<VmaKind>(v[0])};
                 mapping.region = (v[1] & 1) != 0 ? &process->world().bar : nullptr;
                 mapping.shared = (v[1] & 2) != 0 ? &process->shared : nullptr;
                 return reset_after(*process,
                                    process->space().map(mm::tests::at(hole, 4096), mapping));
             },
         .state = [=] { return process->state(); }},
    };
}

std::vector<Row> changes() {
    const auto process = std::make_shared<Process>();
    std::vector<Row> rows;
    for (const std::uint64_t start : {base, base + 4 * mib, base + 8 * mib}) {
        rows.push_back(
            range_row(process, "unmap", start, {}, [](Process& p, VirtualRange range, Values) {
                return reset_after(p, p.space().unmap(range));
            }));
        rows.push_back(
            range_row(process, "zap", start, {}, [](Process& p, VirtualRange range, Values) {
                return reset_after(p, p.space().zap(range));
            }));
        rows.push_back(range_row(
            process, "protect", start, {{.name = "permissions", .good = 1, .bits = 32}},
            [](Process& p, VirtualRange range, Values v) {
                return reset_after(p, p.space().protect(range, static_cast<Attributes>(v[2])));
            }));
    }
    rows.push_back(range_row(
        process, "clear_accessed_dirty", base, {{.name = "which", .good = 0x300, .bits = 32}},
        [](Process& p, VirtualRange range, Values v) {
            return reset_after(p,
                               p.space().clear_accessed_dirty(range, static_cast<Attributes>(v[2]),
                                                              [](const mm::LeafView&) {}));
        }));
    // Not of the BAR: populate would fault in all of its 256 GiB.
    rows.push_back(range_row(
        process, "populate", base, {}, [](Process& p, VirtualRange range, Values) -> Outcome {
            return reset_after(p, p.space().populate(range, mm::Access::write));
        }));
    return rows;
}

std::vector<Row> points() {
    const auto process = std::make_shared<Process>();
    const auto state = [=] { return process->state(); };
    const Argument address = {.name = "address", .good = base};
    return {
        {.name = "fault",
         .arguments = {address},
         .call =
             [=](Values v) {
                 return reset_after(
                     *process, process->space().fault(VirtualAddress(v[0]), mm::Access::write));
             },
         .state = state},
        {.name = "find and look_up",
         .arguments = {address},
         .call = [=](Values v) -> Outcome {
             const VirtualAddress at(v[0]);
             const auto vma = process->space().find(at);
             EXPECT_TRUE(!vma || vma->range.contains(at));
             const auto from = process->space().find_from(at);
             EXPECT_TRUE(!from || from->range.last() >= at);
             const auto leaf = process->space().look_up(at);
             EXPECT_TRUE(!leaf || leaf->range().contains(at));
             return returned;
         },
         .state = state},
        {.name = "split_leaf",
         .arguments = {address, {.name = "size_lg2", .good = 21, .bits = 32}},
         .call = [=](Values v) -> Outcome {
             (void)process->space().split_leaf(VirtualAddress(v[0]), static_cast<unsigned>(v[1]));
             return returned;
         },
         .state = state},
    };
}

struct Counting {
    std::uint64_t bytes = 0;

    template <class Leaf>
    void leaf(VirtualRange part, const Leaf&) {
        bytes += part.size().value();
    }
};

struct Splitting {
    template <class Leaf>
    mm::Action leaf(VirtualRange, const Leaf&) {
        return mm::Action::subtree;
    }
};

std::vector<Row> walks() {
    const auto process = std::make_shared<Process>();
    return {
        range_row(process, "look_up", base, {},
                  [](Process& p, VirtualRange range, Values) {
                      return outcome(p.space().look_up(range, [](const mm::LeafView&) {}));
                  }),
        range_row(process, "walk", base, {},
                  [](Process& p, VirtualRange range, Values) {
                      return outcome(mm::walk(std::as_const(p.space()), range, Counting()));
                  }),
        range_row(process, "walk_and_change", base, {{.name = "retries", .good = 8, .bits = 32}},
                  [](Process& p, VirtualRange range, Values v) {
                      mm::WalkOptions options;
                      options.retries = static_cast<unsigned>(v[2]);
                      return outcome(mm::walk_and_change(p.space(), range, Splitting(), options));
                  }),
        range_row(process, "residency", base, {{.name = "room", .good = 512, .named = false}},
                  [](Process& p, VirtualRange range, Values v) {
                      std::vector<std::uint8_t> pages(std::min<std::uint64_t>(v[2], 4096));
                      return outcome(mm::residency(std::as_const(p.space()), range, pages));
                  }),
        range_row(process, "memory_totals", base, {},
                  [](Process& p, VirtualRange range, Values) {
                      return outcome(mm::memory_totals(std::as_const(p.space()), range));
                  }),
        range_row(
            process, "pagemap_scan", base,
            {{.name = "mask", .good = 0x10, .bits = 32}, {.name = "any", .good = 0, .bits = 32}},
            [](Process& p, VirtualRange range, Values v) {
                mm::PageQuery query;
                query.all = query.reported = static_cast<mm::Pages>(v[2]);
                query.any = query.inverted = static_cast<mm::Pages>(v[3]);
                return outcome(mm::pagemap_scan(std::as_const(p.space()), range, query,
                                                [](VirtualRange, mm::Pages) {}));
            }),
    };
}

std::vector<Row> physical() {
    const auto process = std::make_shared<Process>();
    const auto state = [=] { return std::to_string(process->world().memory.frames_in_use()); };
    return {
        {.name = "take",
         .arguments = {{.name = "order", .good = 9, .bits = 32, .more = {18, 19, 52}},
                       {.name = "page", .good = 0},
                       {.name = "home", .good = 1, .bits = 32},
                       {.name = "nodes", .good = 2, .bits = 32},
                       {.name = "mode", .good = 3, .bits = 2}},
         .call =
             [=](Values v) {
                 auto& memory = process->world().memory;
                 const auto taken = memory.take(
                     static_cast<unsigned>(v[0]),
                     {static_cast<mm::NodeMode>(v[4]), static_cast<std::uint32_t>(v[3])}, v[1],
                     static_cast<unsigned>(v[2]));
                 if (taken)
                     memory.drop(*taken);
                 return outcome(taken);
             },
         .state = state},
        {.name = "behind, frame and region_at",
         .arguments = {{.name = "address", .good = 0x4000'0000}},
         .call = [=](Values v) -> Outcome {
             auto& memory = process->world().memory;
             const PhysicalAddress address(v[0]);
             (void)memory.behind(address);
             (void)memory.frame(address);
             (void)memory.counted_frame(address);
             (void)memory.region_at(address);
             (void)memory.is_zero(address);
             memory.hold(address);
             memory.drop(address);
             return returned;
         },
         .state = state},
        {.name = "hold_frame",
         .arguments = {{.name = "page", .good = 3}, {.name = "home", .good = 0, .bits = 32}},
         .call =
             [=](Values v) {
                 auto& memory = process->world().memory;
                 const auto held =
                     process->shared.hold_frame(memory, v[0], {}, static_cast<unsigned>(v[1]));
                 if (held) {
                     memory.drop(*held);
                     process->reset();
                 }
                 return outcome(held);
             },
         .state = state},
        {.name = "add_region",
         .arguments = {{.name = "start", .good = 1ULL << 44},
                       {.name = "size", .good = 1ULL << 21},
                       {.name = "kind", .good = 1, .bits = 1}},
         .call =
             [=](Values v) {
                 const auto range = PhysicalRange::make(PhysicalAddress(v[0]), ByteCount(v[1]));
                 return range
                            ? reset_after(*process, process->world().memory.add_region(
                                                        *range, static_cast<mm::RegionKind>(v[2])))
                            : outcome(range);
             },
         .state = state},
    };
}

TEST(AddressSpaceContracts, map_takes_any_number) {
    expect_contracts(maps);
}

TEST(AddressSpaceContracts, changes_take_any_number) {
    expect_contracts(changes);
}

TEST(AddressSpaceContracts, look_ups_take_any_address) {
    expect_contracts(points);
}

TEST(AddressSpaceContracts, walks_take_any_number) {
    expect_contracts(walks);
}

TEST(AddressSpaceContracts, physical_memory_takes_any_number) {
    expect_contracts(physical);
}

} // namespace
} // namespace moat::tests
