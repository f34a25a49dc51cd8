// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "time_order.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace moat::watch {

namespace {

/// Within a hard or soft interrupt, or a non-maskable one (Linux, trace_flag_type).
constexpr std::uint8_t interrupt_flags = 0x08 | 0x10 | 0x40;
/// Records of interrupts between an event and its stack.
constexpr unsigned most_between = 64;

bool same_context(RecordBytes a, RecordBytes b) {
    const auto first = header_of(a);
    const auto second = header_of(b);
    return first && second && first->pid == second->pid &&
           ((first->flags ^ second->flags) & interrupt_flags) == 0;
}

} // namespace

std::optional<RecordHeader> header_of(RecordBytes record) {
    if (record.size() < header_bytes)
        return std::nullopt;
    RecordHeader header;
    std::memcpy(&header.id, record.data(), 2);
    std::memcpy(&header.flags, record.data() + 2, 1);
    std::memcpy(&header.pid, record.data() + 4, 4);
    return header;
}

void TimeOrder::add(TracedRecord record) {
    if (record.cpu >= cpus_.size())
        cpus_.resize(record.cpu + 1);
    std::deque<TracedRecord>& records = cpus_[record.cpu];
    if (!records.empty())
        record.time_ns = std::max(record.time_ns, records.back().time_ns);
    records.push_back(std::move(record));
}

void TimeOrder::add_stack(unsigned cpu, RecordBytes stack_record,
                          std::span<const std::uint64_t> stack) {
    if (cpu >= cpus_.size())
        return;
    std::deque<TracedRecord>& records = cpus_[cpu];
    unsigned between = 0;
    for (auto each = records.rbegin(); each != records.rend(); ++each) {
        if (each->lost || between++ == most_between)
            return;
        if (!same_context(each->bytes, stack_record))
            continue;
        if (each->stack.empty())
            each->stack.assign(stack.begin(), stack.end());
        return;
    }
}

void TimeOrder::pass(std::uint64_t cut_ns, FunctionRef<void(const TracedRecord&)> sink) {
    while (true) {
        std::deque<TracedRecord>* oldest = nullptr;
        for (std::deque<TracedRecord>& records : cpus_)
            if (!records.empty() && records.front().time_ns < cut_ns &&
                (oldest == nullptr || records.front().time_ns < oldest->front().time_ns))
                oldest = &records;
        if (oldest == nullptr)
            return;
        const TracedRecord& record = oldest->front();
        passed_ns_ = std::max(record.time_ns, passed_ns_);
        sink(record);
        oldest->pop_front();
    }
}

} // namespace moat::watch
