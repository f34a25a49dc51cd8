// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/sheet_bench.hpp"

#include "moat/core/bits.hpp"

#include "audit/contents.hpp"
#include "audit/sheet.hpp"

#include <algorithm>

namespace moat::audit {

namespace {

constexpr unsigned sheet_page_lg2 = 12;
constexpr std::uint64_t sheet_page = bit(sheet_page_lg2);
/// Each buffer has a window of addresses of its own; most of it stays unmapped.
constexpr unsigned sheet_window_lg2 = 20;
constexpr std::uint64_t sheet_window = bit(sheet_window_lg2);
constexpr std::uint64_t sheet_windows = 64;
constexpr std::uint64_t sheet_first_address = std::uint64_t{16} << 20;
constexpr ByteCount sheet_memory(std::uint64_t{8} << 20);

/// Places of a buffer in its window.
struct SheetPlace {
    std::uint64_t start;
    std::uint64_t mapped_start;
    std::uint64_t mapped_end;
};

SheetPlace place_in(std::uint64_t window, const Need& need, Fit fit) {
    const std::uint64_t size = need.size.value();
    const std::uint64_t middle = window + sheet_window / 4;
    const auto pages_up = [](std::uint64_t value) { return align_up(value, sheet_page_lg2); };
    const auto pages_down = [](std::uint64_t value) { return align_down(value, sheet_page_lg2); };
    switch (fit.kind) {
    case Fit::wide:
        return {middle, middle - sheet_reach, pages_up(middle + size) + sheet_reach};
    case Fit::left: {
        const std::uint64_t start = align_up(middle + fit.distance, need.alignment_lg2);
        return {start, middle, pages_up(start + size) + sheet_reach};
    }
    case Fit::right:
    case Fit::cut:
        break;
    }
    const std::uint64_t distance = fit.kind == Fit::cut ? fit.distance : fit.distance + size;
    const std::uint64_t end = pages_up(middle + distance);
    const std::uint64_t start = align_down(end - distance, need.alignment_lg2);
    return {start, pages_down(start) - sheet_reach, end};
}

} // namespace

Result<std::unique_ptr<SheetBench>>
SheetBench::create(machine::Machine& machine, machine::Bdf address, const AuditOptions& options) {
    MOAT_LET(auto memory, machine.allocate(sheet_memory));
    std::optional<machine::SharedMemory> decoys;
    if (options.decoys == Decoys::at_physical_addresses) {
        MOAT_LET(auto window,
                 machine.allocate(ByteCount(sheet_windows * sheet_window), sheet_window_lg2));
        decoys.emplace(std::move(window));
    }
    std::unique_ptr<SheetBench> bench(
        new SheetBench(machine, address, options, std::move(memory), std::move(decoys)));
    MOAT_TRY(bench->open());
    return bench;
}

SheetBench::SheetBench(machine::Machine& machine, machine::Bdf address, const AuditOptions& options,
                       machine::SharedMemory memory, std::optional<machine::SharedMemory> decoys)
    : machine_(machine), address_(address), options_(options), memory_(std::move(memory)),
      decoys_(std::move(decoys)) {}

Result<void> SheetBench::open() {
    MOAT_LET(domain_, machine_.create_domain());
    MOAT_TRY(machine_.attach(address_, *domain_));
    attached_ = true;
    MOAT_LET(function_, machine_.open(address_));
    if (options_.wrap_domain)
        wrapped_ = options_.wrap_domain(*domain_);
    return {};
}

SheetBench::~SheetBench() {
    driver_.reset();
    function_.reset();
    static_cast<void>(unmap_all(given_));
    static_cast<void>(unmap_all(kept_));
    if (attached_)
        static_cast<void>(machine_.detach(address_));
}

Result<void> SheetBench::start(Fit fit) {
    driver_.reset();
    MOAT_TRY(unmap_all(given_));
    MOAT_TRY(unmap_all(kept_));
    kept_windows_ = next_window_ = kept_offset_ = next_offset_ = 0;
    fit_ = fit;
    MOAT_LET(driver_, options_.probe({machine_, *function_, *this}));
    kept_windows_ = next_window_;
    kept_offset_ = next_offset_;
    faults_.clear();
    return settle({});
}

Result<Buffer> SheetBench::obtain(const Need& need) {
    MOAT_LET(const Spot spot, place(need, fit_));
    std::ranges::fill(spot.bytes(), std::byte{0});
    kept_.push_back(spot);
    return Buffer{spot.range.start(), spot.bytes()};
}

Result<Spot> SheetBench::place(const Need& need, Fit fit) {
    if (next_window_ == sheet_windows)
        next_window_ = kept_windows_;
    const std::uint64_t base = decoys_ ? decoys_->physical().value() : sheet_first_address;
    const SheetPlace at = place_in(base + next_window_ * sheet_window, need, fit);
    const std::uint64_t bytes = at.mapped_end - at.mapped_start;
    if (need.size.value() > sheet_window / 4 || bytes > memory_.size().value() - next_offset_ ||
        need.alignment_lg2 > sheet_window_lg2 - 2)
        return fail(ErrorCode::no_space, "the buffer is too large for a data sheet",
                    {"size", need.size.value()}, {"alignment_lg2", need.alignment_lg2});
    const Spot spot{.label = need.what,
                    .direction = need.direction,
                    .range = IovaRange(Iova(at.start), need.size),
                    .mapped = IovaRange(Iova(at.mapped_start), ByteCount(bytes)),
                    .memory = memory_.bytes().subspan(next_offset_, bytes)};
    std::ranges::fill(spot.memory, canary);
    MOAT_TRY(domain().map(spot.mapped.start(), spot.mapped.size(),
                          PhysicalAddress(memory_.physical().value() + next_offset_),
                          dma::attributes_of(Direction::bidirectional)));
    ++next_window_;
    next_offset_ += bytes;
    return spot;
}

Result<void> SheetBench::unmap(const Spot& spot) {
    const auto same = [&](const Spot& each) { return each.mapped == spot.mapped; };
    const auto found = std::ranges::find_if(given_, same);
    if (found == given_.end())
        return {};
    const IovaRange mapped = found->mapped;
    given_.erase(found);
    return domain().unmap(mapped.start(), mapped.size());
}

Result<void> SheetBench::unmap_all(std::vector<Spot>& spots) {
    for (const Spot& each : std::exchange(spots, {}))
        MOAT_TRY(domain().unmap(each.mapped.start(), each.mapped.size()));
    return {};
}

Result<Ran> SheetBench::run(unsigned operation, ByteCount length, Fit fit) {
    MOAT_TRY(unmap_all(given_));
    next_offset_ = kept_offset_;
    const Operation& about = driver_->operations()[operation];
    Request request{.operation = operation, .data = {}, .length = length, .lists = {}};
    MOAT_LET(const Spot data, place({.what = "data",
                                     .direction = about.direction,
                                     .size = length,
                                     .alignment_lg2 = about.alignment_lg2},
                                    fit));
    given_.push_back(data);
    if (about.direction == Direction::to_device)
        Contents::fill(data.bytes(), driver_->medium(), {});
    request.data = data.range.start();
    std::vector<Buffer> lists;
    for (const Need& need : driver_->lists_for(request)) {
        MOAT_LET(const Spot list, place(need, fit.kind == Fit::cut ? Fit{} : fit));
        given_.insert(given_.end() - 1, list);
        lists.push_back({list.range.start(), list.bytes()});
    }
    request.lists = lists;
    faults_.clear();
    const auto answer = driver_->run(request);
    const std::uint64_t written = written_inside(data);
    if (!answer)
        MOAT_TRY(machine_.health());
    return Ran{answer.value_or(Answer{}), given_, written};
}

Written SheetBench::written_around(const Spot& spot) {
    const auto differs = [](std::byte each) { return each != canary; };
    const auto left = spot.memory.first(spot.before());
    const auto right = spot.memory.last(spot.after());
    const auto first = std::ranges::find_if(left, differs);
    auto last = right.end();
    while (last != right.begin() && !differs(*(last - 1)))
        --last;
    const auto page_left =
        left.last(std::min<std::size_t>(spot.before() % sheet_page, left.size()));
    const std::uint64_t end = spot.before() + spot.inside();
    const auto page_right = right.first(align_up(end, sheet_page_lg2) - end);
    const auto changed =
        std::ranges::count_if(page_left, differs) + std::ranges::count_if(page_right, differs);
    return {.before = static_cast<std::uint64_t>(left.end() - first),
            .after = static_cast<std::uint64_t>(last - right.begin()),
            .rest_of_page = static_cast<std::uint64_t>(changed)};
}

std::uint64_t SheetBench::written_inside(const Spot& spot) {
    return static_cast<std::uint64_t>(
        std::ranges::count_if(spot.bytes(), [](std::byte each) { return each != canary; }));
}

void SheetBench::wait(std::chrono::nanoseconds time) {
    auto never = [] { return false; };
    static_cast<void>(machine_.wait_until(never, time));
}

Result<void> SheetBench::settle(std::chrono::nanoseconds time) {
    wait(std::max(time, options_.settle));
    auto keep = [&](const fault::Record& record) { faults_.push_back(record); };
    MOAT_TRY(machine_.take_faults(keep));
    return {};
}

std::vector<Blocked> SheetBench::blocked_beside(const Spot& spot) const {
    std::vector<Blocked> found;
    const std::uint64_t begin = spot.mapped.start().value();
    const std::uint64_t end = begin + spot.memory.size();
    for (const fault::Record& record : faults_) {
        if (record.where.empty())
            continue;
        const std::uint64_t first = record.where.start().value();
        const std::uint64_t last = record.where.last().value();
        const bool is_left = first < begin && begin - first <= sheet_window / 4;
        const bool is_right = first >= end && first - end < sheet_window / 2;
        if (!is_left && !is_right)
            continue;
        Blocked blocked{.is_left = is_left, .wrote = record.access == fault::Access::write};
        if (record.precision == fault::Precision::exact)
            blocked.extent =
                is_left ? spot.range.start().value() - first : last - spot.range.last().value();
        found.push_back(blocked);
    }
    return found;
}

bool SheetBench::is_blocked_inside(const Spot& spot) const {
    return std::ranges::any_of(faults_, [&](const fault::Record& record) {
        return !record.where.empty() && spot.mapped.contains(record.where.start());
    });
}

} // namespace moat::audit
