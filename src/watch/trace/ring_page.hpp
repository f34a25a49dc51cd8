// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decodes a page of a CPU's trace ring (trace_pipe_raw) into records with absolute times. A page is
// hostile input: no length in it leads outside. The layout: Linux, include/linux/ring_buffer.h and
// tracefs' events/header_page.
#pragma once

#include "moat/core/function_ref.hpp"

#include "event_format.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace moat::watch {

/// Of 64-bit kernels with pages of 4 KiB, unless a file says otherwise.
struct PageLayout {
    std::uint32_t commit_offset = 8;
    std::uint32_t commit_size = 8;
    std::uint32_t data_offset = 16;
    std::uint32_t data_size = 4080;

    [[nodiscard]] std::size_t page_bytes() const { return std::size_t{data_offset} + data_size; }
};

/// The same with pages of as many KiB as the text says, if it is a number up to 1024: instances
/// may have larger pages (buffer_subbuf_size_kb).
[[nodiscard]] PageLayout with_page_size(const PageLayout& layout, std::string_view kib);

/// The layout that the text of events/header_page describes; the default where it is unreadable.
[[nodiscard]] PageLayout parse_page_layout(std::string_view header_page);

/// Valid during the callback.
struct RingRecord {
    std::uint64_t time_ns = 0;
    RecordBytes bytes = {}; ///< begins with the record's event ID
};

/// What was overwritten before it was read.
struct PageLoss {
    std::uint64_t count = 0;   ///< 0: unknown
    std::uint64_t time_ns = 0; ///< the page's first time: all lost records are older
};

using RingRecordSink = FunctionRef<void(const RingRecord&)>;
using PageLossSink = FunctionRef<void(const PageLoss&)>;

/// Passes on the loss before the page, if any, then its records in their order.
void decode_page(std::span<const std::byte> page, const PageLayout& layout, PageLossSink on_loss,
                 RingRecordSink on_record);

} // namespace moat::watch
