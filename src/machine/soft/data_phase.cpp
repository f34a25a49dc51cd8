// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Moves the data of a command, and commits the misdeeds.
#include "machine/soft/data_phase.hpp"

#include <algorithm>
#include <utility>

namespace moat::machine::soft {

namespace {

/// `start` - `bytes`, at least 0, like a device's counter that does not wrap.
[[nodiscard]] std::uint64_t before(Iova start, std::uint64_t bytes) {
    return start.value() - std::min(start.value(), bytes);
}

} // namespace

bool DataPhase::to_memory(BusMaster& bus, std::span<const Segment> segments,
                          std::span<const std::byte> right) {
    const std::span<const Segment> used = begin(bus, segments);
    const std::span<const std::byte> data = mixed_up(right);
    const auto write = [&](const Segment& segment, std::uint64_t offset) {
        return bus.write(segment.start, data.subspan(offset, segment.bytes));
    };
    return transfer(bus, used, data.size(), Way::to_memory, write);
}

bool DataPhase::from_memory(BusMaster& bus, std::span<const Segment> segments,
                            std::span<std::byte> data) {
    const std::span<const Segment> used = begin(bus, segments);
    const auto read = [&](const Segment& segment, std::uint64_t offset) {
        return bus.read(segment.start, data.subspan(offset, segment.bytes));
    };
    const bool arrived = transfer(bus, used, data.size(), Way::from_memory, read);
    if (misdeed_ == Misdeed::read_only_violated && !used.empty())
        stray(bus, used.front().start, std::min(used.front().bytes, how_.bytes), Way::to_memory);
    return arrived;
}

bool DataPhase::transfer(BusMaster& bus, std::span<const Segment> segments, std::uint64_t size,
                         Way way, FunctionRef<ByteCount(const Segment&, std::uint64_t)> access) {
    const std::uint64_t bytes = moved(size);
    std::uint64_t offset = 0;
    bool arrived = true;
    for (const Segment& segment : segments) {
        const std::uint64_t here = std::min(segment.bytes, bytes - offset);
        arrived = arrived && (here == 0 || access({segment.start, here}, offset).value() == here);
        offset += here;
    }
    stray_around(bus, segments, way);
    if (misdeed_ == Misdeed::wrong_status) {
        ++misdeeds_;
        return !arrived;
    }
    return arrived || misdeed_ == Misdeed::stale_address || misdeed_ == Misdeed::truncated_address;
}

bool DataPhase::after_completion(BusMaster& bus) {
    if (!late_ || bus.now() < late_->due)
        return false;
    const Segment where = std::exchange(late_, std::nullopt)->where;
    stray(bus, where.start, std::min(where.bytes, how_.bytes), Way::to_memory);
    return true;
}

void DataPhase::reset() {
    previous_.clear();
    late_.reset();
}

std::span<const Segment> DataPhase::begin(BusMaster& bus, std::span<const Segment> told) {
    misdeed_ = how_.when.include(commands_++) ? how_.misdeed : Misdeed::none;
    if (misdeed_ == Misdeed::write_after_completion && !told.empty() && !late_)
        late_ = {.where = told.front(), .due = bus.now() + how_.delay};
    if (misdeed_ != Misdeed::stale_address || previous_.empty())
        previous_.assign(told.begin(), told.end());
    else if (!std::ranges::equal(previous_, told, {}, &Segment::start, &Segment::start))
        ++misdeeds_;
    if (misdeed_ == Misdeed::truncated_address)
        truncate(previous_);
    return previous_;
}

void DataPhase::truncate(std::span<Segment> segments) {
    constexpr std::uint64_t lower_half = 0xffff'ffff;
    bool changed = false;
    for (Segment& each : segments) {
        changed |= each.start.value() > lower_half;
        each.start = Iova(each.start.value() & lower_half);
    }
    misdeeds_ += changed ? 1 : 0;
}

std::span<const std::byte> DataPhase::mixed_up(std::span<const std::byte> data) {
    if (misdeed_ != Misdeed::data_mixed_up)
        return data;
    mixed_.assign(data.begin(), data.end());
    const auto count =
        static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(how_.bytes, data.size() / 2));
    std::swap_ranges(mixed_.begin(), mixed_.begin() + count, mixed_.end() - count);
    misdeeds_ += std::ranges::equal(mixed_, data) ? 0 : 1;
    return mixed_;
}

std::uint64_t DataPhase::moved(std::uint64_t size) {
    if (misdeed_ != Misdeed::wrong_length)
        return size;
    const std::uint64_t missing = std::min(size, how_.bytes);
    misdeeds_ += missing != 0 ? 1 : 0;
    return size - missing;
}

void DataPhase::stray(BusMaster& bus, Iova start, std::uint64_t bytes, Way way) {
    std::vector<std::byte> strays(std::min(bytes, most_stray), stray_byte);
    if (strays.empty())
        return;
    ++misdeeds_;
    // The IOMMU decides whether it succeeds.
    if (way == Way::to_memory)
        static_cast<void>(bus.write(start, strays));
    else
        static_cast<void>(bus.read(start, strays));
}

void DataPhase::stray_around(BusMaster& bus, std::span<const Segment> segments, Way way) {
    if (segments.empty())
        return;
    const Segment& last = segments.back();
    const std::uint64_t end = last.start.value() + last.bytes; // may wrap to 0; nothing lies there
    if (misdeed_ == Misdeed::overrun && end != 0)
        stray(bus, Iova(end), how_.bytes, way);
    const Iova first = segments.front().start;
    const std::uint64_t begin = before(first, std::min(how_.bytes, most_stray));
    if (misdeed_ == Misdeed::underrun)
        stray(bus, Iova(begin), first.value() - begin, way);
}

} // namespace moat::machine::soft
