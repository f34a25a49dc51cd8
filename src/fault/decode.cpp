// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reads logs: times, suppressed lines, and lines that belong together. dialects.hpp decodes single
// lines.
#include "moat/fault/decode.hpp"

#include "dialects.hpp"
#include "marks.hpp"
#include "text_cursor.hpp"

#include <algorithm>
#include <utility>

namespace moat::fault {

namespace {

/// "[   11.231663] ", or /dev/kmsg's "6,1234,11231663,-;" where the time is in microseconds.
[[nodiscard]] std::optional<std::uint64_t> log_time(std::string_view line) {
    TextCursor kmsg(line);
    if (kmsg.decimal<std::uint32_t>() && kmsg.accept(",") && kmsg.decimal() && kmsg.accept(",")) {
        const auto microseconds = kmsg.decimal();
        if (microseconds && *microseconds < ~std::uint64_t{0} / 1000 && kmsg.accept(","))
            return *microseconds * 1000;
    }
    TextCursor cursor(line);
    if (!cursor.find("["))
        return std::nullopt;
    while (cursor.accept(" ")) {
    }
    const auto seconds = cursor.decimal<std::uint32_t>();
    if (!seconds || !cursor.accept("."))
        return std::nullopt;
    const std::size_t digits = cursor.rest().find(']');
    const auto microseconds = cursor.decimal<std::uint32_t>();
    if (!microseconds || digits != 6 || !cursor.accept("]"))
        return std::nullopt;
    return *seconds * std::uint64_t{1'000'000'000} + *microseconds * std::uint64_t{1000};
}

/// "dmar_fault: 17 callbacks suppressed", by any of the drivers that report faults.
[[nodiscard]] std::uint64_t suppressed_by(std::string_view line) {
    const std::size_t end = line.find(" callbacks suppressed");
    if (end == line.npos)
        return 0;
    const std::string_view head = line.substr(0, end);
    const auto names = [&](std::string_view word) { return head.find(word) != head.npos; };
    if (!names("dmar") && !names("iommu") && !names("smmu") && !names("io_page_fault"))
        return 0;
    return TextCursor(head.substr(head.rfind(' ') + 1)).decimal().value_or(0);
}

/// The most unrelated lines between two that belong together.
constexpr unsigned most_noise = 8;

[[nodiscard]] std::optional<LogEvent> decode_whole(std::string_view line) {
    constexpr std::array dialects = {&decode_amd,          &decode_smmu_v2, &decode_riscv,
                                     &decode_virtio_iommu, &decode_qemu,    &decode_vfio,
                                     &decode_tracepoint};
    for (const auto decode : dialects)
        if (auto decoded = decode(line))
            return decoded;
    return std::nullopt;
}

} // namespace

void Decoder::line(std::string_view line, Sink sink) {
    line = line.substr(0, longest_line);
    while (line.ends_with('\r') || line.ends_with('\n') || line.ends_with(' '))
        line.remove_suffix(1);
    ++counts_.lines;
    const bool names_iommu = iommu_marks.in(line);
    counts_.naming_an_iommu += names_iommu ? 1 : 0;
    if (!understands(line, sink) && names_iommu && ++counts_.unknown == 1) {
        counts_.first_unknown_number = counts_.lines;
        counts_.first_unknown = line;
    }
}

bool Decoder::understands(std::string_view line, Sink sink) {
    if (continues(line, sink))
        return true;
    const auto time = log_time(line);
    if (const auto decoded = decode_intel(line)) {
        begin(*decoded, line, Pending::Stage::intel_reason, time, sink);
        if (has_intel_reason(*decoded))
            finish(sink);
    } else if (const auto event = decode_smmu_v3(line)) {
        begin(*event, line, Pending::Stage::smmu_words, time, sink);
        if (event->record.reason == Reason::events_lost)
            finish(sink);
    } else if (const auto whole = decode_whole(line)) {
        begin(*whole, line, Pending::Stage::none, time, sink);
        finish(sink);
    } else if (const std::uint64_t count = suppressed_by(line)) {
        finish(sink);
        suppressed_ += std::min(count, ~std::uint64_t{0} - suppressed_);
    } else {
        if (++pending_.noise > most_noise)
            finish(sink);
        return false;
    }
    return true;
}

void Decoder::end(Sink sink) {
    finish(sink);
    if (suppressed_ == 0)
        return;
    sink({.kind = LogEvent::Kind::suppressed,
          .record = {.reason = Reason::events_lost, .suppressed = std::exchange(suppressed_, 0)}});
}

bool Decoder::continues(std::string_view line, Sink sink) {
    switch (pending_.stage) {
    case Pending::Stage::none:
        return false;
    case Pending::Stage::intel_reason:
        if (line.find("Request device") != line.npos || !add_intel_reason(line, pending_.decoded))
            return false;
        finish(sink);
        return true;
    case Pending::Stage::smmu_words: {
        const auto word = smmu_word(line);
        if (!word)
            return false;
        pending_.noise = 0;
        pending_.words[pending_.words_read++] = *word;
        if (pending_.words_read == pending_.words.size()) {
            add_smmu_words(pending_.words, pending_.decoded);
            pending_.stage = Pending::Stage::smmu_names;
        }
        return true;
    }
    case Pending::Stage::smmu_names:
        return add_smmu_names(line, pending_.decoded);
    }
    return false;
}

void Decoder::begin(LogEvent decoded, std::string_view line, Pending::Stage stage,
                    std::optional<std::uint64_t> time_ns, Sink sink) {
    finish(sink);
    if (!decoded.record.time_ns)
        decoded.record.time_ns = time_ns;
    decoded.line_number = counts_.lines;
    decoded.raw = line;
    pending_ = {.stage = stage, .decoded = std::move(decoded), .waits = true};
}

void Decoder::finish(Sink sink) {
    if (!pending_.waits)
        return;
    pending_.waits = false;
    pending_.stage = Pending::Stage::none;
    if (pending_.decoded.kind == LogEvent::Kind::fault) {
        pending_.decoded.record.suppressed = suppressed_;
        suppressed_ = 0;
    }
    sink(pending_.decoded);
}

} // namespace moat::fault
