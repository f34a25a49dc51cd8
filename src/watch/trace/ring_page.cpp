// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "ring_page.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>

namespace moat::watch {

namespace {

constexpr std::uint64_t missed_bit = 1U << 31;
constexpr std::uint64_t missed_stored_bit = 1U << 30; // the count lies behind the records
constexpr std::uint64_t commit_mask = (1U << 20) - 1;
constexpr std::uint32_t largest_data = 1U << 20;

// The lower 5 bits of a record's first word: its kind, or its length in words.
constexpr std::uint32_t long_record = 0;
constexpr std::uint32_t padding = 29;
constexpr std::uint32_t time_extend = 30;
constexpr std::uint32_t time_stamp = 31;

template <class Number>
Number number_from(std::span<const std::byte> bytes, std::size_t at) {
    Number number{};
    if (at <= bytes.size() && sizeof number <= bytes.size() - at)
        std::memcpy(&number, bytes.data() + at, sizeof number);
    return number;
}

/// A time stamp has 59 bits: the upper ones are those of the time before it.
std::uint64_t whole_time(std::uint64_t stamp, std::uint64_t before) {
    constexpr std::uint64_t step = std::uint64_t{1} << 59;
    const std::uint64_t time = (before & ~(step - 1)) | stamp;
    return time < before ? time + step : time;
}

/// Walks the records of a page. Each step consumes 4 bytes at least.
class PageWalk {
  public:
    PageWalk(std::span<const std::byte> data, std::uint64_t time_ns)
        : data_(data), time_ns_(time_ns) {}

    void each(RingRecordSink sink) {
        while (data_.size() >= 4)
            if (!step(sink))
                return;
    }

  private:
    /// Return: whether more may follow.
    bool step(RingRecordSink sink) {
        const auto head = number_from<std::uint32_t>(data_, 0);
        const auto word = number_from<std::uint32_t>(data_, 4);
        const std::uint32_t kind = head & 31;
        const std::uint64_t delta = head >> 5;
        switch (kind) {
        case padding: // the rest of the page, or a discarded record
            time_ns_ += delta;
            return delta != 0 && skip(4 + std::size_t{word});
        case time_extend:
            time_ns_ += delta + (std::uint64_t{word} << 27);
            return skip(8);
        case time_stamp:
            time_ns_ = whole_time(delta + (std::uint64_t{word} << 27), time_ns_);
            return skip(8);
        case long_record:
            time_ns_ += delta;
            return word > 4 && record(8, word - 4, sink) && skip(4 + std::size_t{word});
        default:
            time_ns_ += delta;
            return record(4, std::size_t{kind} * 4, sink) && skip(4 + std::size_t{kind} * 4);
        }
    }

    bool record(std::size_t start, std::size_t size, RingRecordSink sink) {
        if (start > data_.size() || size > data_.size() - start)
            return false;
        sink(RingRecord{.time_ns = time_ns_, .bytes = data_.subspan(start, size)});
        return true;
    }

    bool skip(std::size_t bytes) {
        data_ = data_.subspan(std::min((bytes + 3) & ~std::size_t{3}, data_.size()));
        return true;
    }

    std::span<const std::byte> data_;
    std::uint64_t time_ns_;
};

} // namespace

PageLayout parse_page_layout(std::string_view header_page) {
    // A format file without a name and an ID.
    const auto format = parse_event_format("name: page\nID: 0\n" + std::string(header_page));
    PageLayout layout;
    if (!format)
        return layout;
    const EventField* commit = format->find("commit");
    const EventField* data = format->find("data");
    if (commit == nullptr || data == nullptr || (commit->size != 4 && commit->size != 8) ||
        data->size == 0 || data->size > largest_data)
        return layout;
    return {.commit_offset = commit->offset,
            .commit_size = commit->size,
            .data_offset = data->offset,
            .data_size = data->size};
}

PageLayout with_page_size(const PageLayout& layout, std::string_view kib) {
    PageLayout sized = layout;
    std::uint32_t pages_kib = 0;
    std::from_chars(kib.data(), kib.data() + kib.size(), pages_kib);
    if (pages_kib != 0 && pages_kib <= 1024 && pages_kib * 1024 > layout.data_offset)
        sized.data_size = pages_kib * 1024 - layout.data_offset;
    return sized;
}

void decode_page(std::span<const std::byte> page, const PageLayout& layout, PageLossSink on_loss,
                 RingRecordSink on_record) {
    if (page.size() < layout.data_offset)
        return;
    const auto time_ns = number_from<std::uint64_t>(page, 0);
    const std::uint64_t commit = layout.commit_size == 8
                                     ? number_from<std::uint64_t>(page, layout.commit_offset)
                                     : number_from<std::uint32_t>(page, layout.commit_offset);
    const std::span<const std::byte> data = page.subspan(layout.data_offset);
    const std::size_t used = std::min<std::size_t>(commit & commit_mask, data.size());
    if ((commit & missed_bit) != 0) {
        const bool is_counted = (commit & missed_stored_bit) != 0;
        on_loss(PageLoss{.count = is_counted ? number_from<std::uint64_t>(data, used) : 0,
                         .time_ns = time_ns});
    }
    PageWalk(data.first(used), time_ns).each(on_record);
}

} // namespace moat::watch
