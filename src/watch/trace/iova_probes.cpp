// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "iova_probes.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

namespace moat::watch {

namespace {

constexpr std::size_t most_calls = 1024; // more were lost with their returns
/// free_iova_fast counts in granules of the IOMMU's smallest page.
constexpr unsigned granule_lg2 = 12;

/// Calls nest in one context only: a thread's, at one interrupt level; idle threads share a number.
std::uint64_t context_of(const TracedRecord& record) {
    const RecordHeader header = header_of(record.bytes).value_or(RecordHeader{});
    const std::uint64_t cpu = header.pid == 0 ? record.cpu : 0;
    return cpu << 40 | std::uint64_t{header.pid} << 8 | (header.flags & 0x58U);
}

std::vector<std::uintptr_t> kept(fault::StackView stack) {
    return {stack.begin(), stack.end()};
}

} // namespace

fault::StackView callers_of(fault::StackView stack, const RecordFields& fields) {
    constexpr std::uint64_t entry_bytes = 16; // a probe's instructions at a function's entry
    const auto entry = fields.number("__probe_ip");
    const auto returns_to = fields.number("__probe_ret_ip");
    for (auto frame = stack.begin(); frame != stack.end(); ++frame) {
        if (returns_to == *frame)
            return {frame, stack.end()};
        if (entry && *frame >= *entry && *frame - *entry <= entry_bytes)
            return {std::next(frame), stack.end()};
    }
    return stack;
}

void IovaProbes::call(const TracedRecord& record, const EventFormat& format) {
    const RecordFields fields(record.bytes, format);
    if (calls_.size() == most_calls)
        calls_.erase(calls_.begin());
    calls_.push_back({.context = context_of(record),
                      .device = std::string(fields.text("device")),
                      .size = fields.number("size").value_or(0),
                      .stack = kept(callers_of(record.stack, fields))});
}

std::optional<fault::DmaEvent> IovaProbes::allocate(const TracedRecord& record,
                                                    const EventFormat& format,
                                                    fault::DmaEvent common) {
    const RecordFields fields(record.bytes, format);
    if (fields.has("device")) {
        returned_ = {.device = std::string(fields.text("device")),
                     .size = fields.number("size").value_or(0),
                     .stack = kept(callers_of(record.stack, fields))};
    } else {
        const auto call = std::find_if(calls_.rbegin(), calls_.rend(), [&](const Call& each) {
            return each.context == context_of(record);
        });
        if (call == calls_.rend())
            return std::nullopt;
        returned_ = std::move(*call);
        calls_.erase(std::prev(call.base()));
    }
    const auto start = fields.number("r").value_or(0);
    const auto range = IovaRange::make(Iova(start), ByteCount(returned_.size));
    if (start == 0 || !range || range->empty())
        return std::nullopt;
    if (const auto cookie = fields.number("cookie").value_or(0); cookie != 0)
        owners_.link(cookie, returned_.device);
    else
        owners_.allocate(start, returned_.device);
    common.kind = fault::DmaEvent::Kind::allocate;
    common.device = returned_.device;
    common.call = "iommu_dma_alloc_iova";
    common.range = *range;
    common.stack = returned_.stack;
    return common;
}

std::optional<fault::DmaEvent> IovaProbes::free(const TracedRecord& record,
                                                const EventFormat& format, fault::DmaEvent common) {
    const RecordFields fields(record.bytes, format);
    const auto allocator = fields.number("iovad");
    const auto pfn = fields.number("pfn");
    const auto size = fields.number("size");
    if (!allocator || !pfn || !size || *pfn >> (64 - granule_lg2) != 0 ||
        *size >> (64 - granule_lg2) != 0)
        return std::nullopt;
    const auto range = IovaRange::make(Iova(*pfn << granule_lg2), ByteCount(*size << granule_lg2));
    if (!range || range->empty())
        return std::nullopt;
    common.kind = fault::DmaEvent::Kind::free;
    common.call = "free_iova_fast";
    common.range = *range;
    common.device = owners_.free(*allocator, range->start().value());
    return common;
}

} // namespace moat::watch
