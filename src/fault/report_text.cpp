// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Writes a diagnosis in the order of AddressSanitizer's reports. neighbourhood.cpp draws the map.
#include "moat/fault/report.hpp"

#include <cinttypes>
#include <cstdio>

namespace moat::fault {

namespace {

[[nodiscard]] std::string in_seconds(std::uint64_t ns) {
    char text[40];
    std::snprintf(text, sizeof text, "%" PRIu64 ".%06" PRIu64 " s", ns / 1'000'000'000,
                  ns / 1000 % 1'000'000);
    return text;
}

[[nodiscard]] std::string count_of_bytes(std::uint64_t bytes) {
    return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

[[nodiscard]] std::string bracketed(const IovaRange& range) {
    const std::string start = "[" + hexadecimal(range.start().value()) + ", ";
    if (range.last() == Iova(~std::uint64_t{0}))
        return start + "2^64)";
    return start + hexadecimal(range.end().value()) + ")";
}

[[nodiscard]] std::string quoted(const Mapping& mapping) {
    return mapping.label.empty() ? "the mapping at " + hexadecimal(mapping.range.start().value())
                                 : "\"" + std::string(mapping.label) + "\"";
}

/// `the 4096-byte mapping [0x1000, 0x2000) "label" (read-write)`, with `article` before it.
[[nodiscard]] std::string named(std::string_view article, const Mapping& mapping) {
    std::string text = std::string(article) + " " + std::to_string(mapping.range.size().value()) +
                       "-byte mapping " + bracketed(mapping.range);
    if (!mapping.label.empty())
        text += " \"" + std::string(mapping.label) + "\"";
    return text + " (" + std::string(name(mapping.allows)) + ")";
}

[[nodiscard]] std::string distance_text(const Distance& distance) {
    if (distance.least == distance.most)
        return count_of_bytes(distance.least);
    return std::to_string(distance.least) + " to " + count_of_bytes(distance.most);
}

/// The mapping that `side` and `distance` are relative to.
[[nodiscard]] const Mapping* anchor(const Diagnosis& diagnosis) {
    if (diagnosis.kind == fault::Kind::use_after_unmap)
        return &diagnosis.past->mapping;
    return diagnosis.mapping ? &*diagnosis.mapping : nullptr;
}

/// Whether the access overlaps the mapping that it strayed from.
[[nodiscard]] bool runs_out(const Diagnosis& diagnosis) {
    return diagnosis.bytes_outside != 0 &&
           diagnosis.bytes_outside != diagnosis.record.where.size().value();
}

/// "17 bytes past the end of", "inside"
[[nodiscard]] std::string relation(const Diagnosis& diagnosis) {
    const std::string distance = distance_text(diagnosis.distance);
    if (runs_out(diagnosis))
        return count_of_bytes(diagnosis.bytes_outside) +
               (diagnosis.side == Side::right ? " over the end of" : " before the start of");
    if (diagnosis.side == Side::right)
        return distance + " past the end of";
    return diagnosis.side == Side::left ? distance + " before the start of" : "inside";
}

[[nodiscard]] std::string verb(Access access) {
    return access == Access::unknown ? "access" : std::string(name(access));
}

[[nodiscard]] std::string device_name(const Record& record, std::string_view device) {
    const std::string number = to_string(record.source);
    return device.empty() ? number : std::string(device) + " (" + number + ")";
}

[[nodiscard]] std::string place(const Record& record) {
    if (record.precision == Precision::none)
        return "no address";
    const std::string start = hexadecimal(record.where.start().value());
    return record.precision == Precision::page ? "page " + start : "IOVA " + start;
}

/// Builds the text line by line, in colour if wanted.
class Writer {
  public:
    explicit Writer(const ReportOptions& options) : options_(options) {}

    void line(const std::string& text = {}) { text_ += text + "\n"; }

    void loud(const std::string& text) {
        line(options_.colour == Colour::ansi ? "\033[1;31m" + text + "\033[0m" : text);
    }

    void raw(const std::string& text) { text_ += text; }

    /// "mapped by thread 7 at 1.5 s:" and the stack; nothing if the event is unknown.
    void event(std::string_view what, const Event& event) {
        if (event.thread == 0 && event.time_ns == 0 && event.stack.empty())
            return;
        std::string head(what);
        if (event.thread != 0)
            head += " by thread " + std::to_string(event.thread);
        if (event.time_ns != 0)
            head += " at " + in_seconds(event.time_ns);
        line(head + (event.stack.empty() ? " (no stack recorded)" : " here:"));
        stack(event.stack);
        line();
    }

    [[nodiscard]] std::string take() { return std::move(text_); }

  private:
    void stack(StackView addresses) {
        unsigned number = 0;
        const auto print = [&](const StackFrame& frame) {
            if (number == options_.most_frames)
                return;
            std::string text =
                "    #" + std::to_string(number++) + " " + hexadecimal(frame.address);
            if (!frame.function.empty())
                text += " in " + std::string(frame.function);
            if (!frame.file.empty())
                text += " " + std::string(frame.file) + ":" + std::to_string(frame.line);
            else if (!frame.module.empty())
                text += " (" + std::string(frame.module) + ")";
            line(text);
        };
        for (const std::uintptr_t address : addresses)
            options_.symbolise(address, print);
    }

    const ReportOptions& options_;
    std::string text_;
};

void write_access(Writer& out, const Diagnosis& diagnosis, const ReportOptions& options) {
    const Record& record = diagnosis.record;
    std::string text = verb(record.access);
    for (char& letter : text)
        letter = static_cast<char>(letter - ('a' - 'A'));
    if (record.precision == Precision::exact)
        text += " of " + count_of_bytes(record.where.size().value());
    text += " at " + place(record) + " by device " + device_name(record, options.device);
    if (record.domain)
        text += ", domain " + hexadecimal(*record.domain);
    if (record.pasid)
        text += ", PASID " + hexadecimal(*record.pasid);
    if (record.time_ns)
        text += ", at " + in_seconds(*record.time_ns);
    out.line(text);
    text = "  IOMMU fault reason: " + std::string(name(record.reason));
    if (record.code)
        text += " (code " + hexadecimal(*record.code) + ")";
    out.line(text);
    if (record.suppressed != 0)
        out.line("  " + std::to_string(record.suppressed) + " earlier faults were not reported");
}

/// "IOVA 0x11010 lies 17 bytes past the end of the ...".
void write_verdict(Writer& out, const Diagnosis& diagnosis) {
    const std::string at = place(diagnosis.record);
    switch (diagnosis.kind) {
    case fault::Kind::out_of_bounds_right:
    case fault::Kind::out_of_bounds_left:
        out.line((runs_out(diagnosis) ? "It reached " : at + " lies ") + relation(diagnosis) + " " +
                 named("the", *diagnosis.mapping));
        break;
    case fault::Kind::crossing:
        out.line((runs_out(diagnosis) ? "It reached " : at + " lies ") + relation(diagnosis) + " " +
                 named("the", *diagnosis.mapping));
        out.line((runs_out(diagnosis) ? "  into " : "  and reaches ") +
                 named("the", *diagnosis.next));
        break;
    case fault::Kind::use_after_unmap:
        out.line(at + " lies " + relation(diagnosis) + " " +
                 named("the former", diagnosis.past->mapping));
        out.line("  which was unmapped; unmaps since then: " +
                 std::to_string(diagnosis.past->unmaps_since));
        break;
    case fault::Kind::permission:
        out.line(at + " lies inside " + named("the", *diagnosis.mapping));
        out.line("  which does not allow a device to " + verb(diagnosis.record.access) + " it");
        break;
    case fault::Kind::poisoned:
        out.line(at + " lies inside " + named("the", *diagnosis.mapping));
        out.line("  whose owner poisoned these bytes: the device used a part of it that it does "
                 "not own");
        break;
    case fault::Kind::mapped_and_allowed:
        out.line(at + " lies inside " + named("the", *diagnosis.mapping));
        out.line(
            "  which allows it: the mapping is newer than the fault, the cache of the device or "
            "the IOMMU is stale, or the device is in another domain");
        break;
    case fault::Kind::wild:
        out.line(at + " lies far from every live or past mapping");
        break;
    case fault::Kind::never_mapped:
        out.line("No memory is or was mapped for this device");
        break;
    case fault::Kind::not_attached:
        out.line("The device, or its PASID, is not attached to a translating domain");
        break;
    case fault::Kind::no_access:
        out.line("The fault is not about a memory access");
        break;
    }
}

void write_neighbour(Writer& out, const Diagnosis& diagnosis, std::string_view where,
                     const std::optional<Mapping>& mapping) {
    if (!mapping)
        return;
    const IovaRange& range = mapping->range;
    const IovaRange& access = diagnosis.record.where;
    const std::uint64_t gap =
        range.last() < access.start()   ? access.start().value() - range.last().value() - 1
        : range.start() > access.last() ? range.start().value() - access.last().value() - 1
                                        : 0;
    out.line("  " + std::string(where) + ", " + count_of_bytes(gap) +
             " away: " + named("the", *mapping));
}

void write_neighbours(Writer& out, const Diagnosis& diagnosis) {
    if (!diagnosis.left && !diagnosis.right)
        return;
    out.line("Neighbours:");
    write_neighbour(out, diagnosis, "below", diagnosis.left);
    if (!diagnosis.next) // otherwise it is named already
        write_neighbour(out, diagnosis, "above", diagnosis.right);
    out.line();
}

} // namespace

std::string summary(const Diagnosis& diagnosis) {
    const Record& record = diagnosis.record;
    std::string text = std::string(name(diagnosis.kind)) + ": " + verb(record.access) + " by " +
                       to_string(record.source);
    if (const Mapping* const mapping = anchor(diagnosis))
        return text + ", " + relation(diagnosis) + " " + quoted(*mapping);
    if (record.precision != Precision::none)
        text += " at " + place(record);
    return text + " (" + std::string(name(record.reason)) + ")";
}

std::string event_text(std::string_view what, const Event& event, const ReportOptions& options) {
    Writer out(options);
    out.event(what, event);
    return out.take();
}

std::string text_report(const Diagnosis& diagnosis, const ReportOptions& options) {
    Writer out(options);
    const std::string rule(65, '=');
    out.line(rule);
    const std::string head =
        options.process_id != 0 ? "==" + std::to_string(options.process_id) + "==" : "";
    out.loud(head + "ERROR: moat: " + std::string(name(diagnosis.kind)) + " on " +
             place(diagnosis.record) + " by device " +
             device_name(diagnosis.record, options.device));
    write_access(out, diagnosis, options);
    out.line();
    write_verdict(out, diagnosis);
    out.line();
    if (const Mapping* const mapping = anchor(diagnosis); mapping && mapping->sampled_of != 0)
        out.line("Sampled: one mapping in " + std::to_string(mapping->sampled_of) +
                 " is watched like this one\n");
    if (diagnosis.mapping)
        out.event("mapped", diagnosis.mapping->mapped);
    if (diagnosis.next)
        out.event("next mapping mapped", diagnosis.next->mapped);
    if (diagnosis.kind == fault::Kind::use_after_unmap) {
        out.event("unmapped", diagnosis.past->unmapped);
        out.event("previously mapped", diagnosis.past->mapping.mapped);
    } else if (diagnosis.past) {
        out.line("Or a late access to " + named("a former", diagnosis.past->mapping) +
                 " at this address");
        out.line();
    }
    write_neighbours(out, diagnosis);
    out.raw(neighbourhood(diagnosis, options));
    out.line("SUMMARY: moat: " + summary(diagnosis));
    out.line(rule);
    return out.take();
}

} // namespace moat::fault
