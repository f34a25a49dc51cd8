// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/audit_report.hpp"

#include "moat/core/text.hpp"
#include "moat/fault/report.hpp"

#include "command/picture/picture_texts.hpp"
#include "command/terminal/output.hpp"
#include "command/terminal/terminal.hpp"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using audit::Finding;
using nlohmann::ordered_json;

[[nodiscard]] std::string_view name_of(audit::Placement placement) {
    return placement == audit::Placement::left ? "left" : "right";
}

[[nodiscard]] std::string_view name_of(audit::Verdict verdict) {
    constexpr std::array<std::string_view, 3> names = {"success", "failure", "no-answer"};
    return names[static_cast<std::size_t>(verdict)];
}

/// "64 bytes past the end of "data" (512 bytes at 0x1000e00)"
[[nodiscard]] std::string where(const Finding& finding) {
    if (finding.buffer.empty())
        return "";
    std::string text;
    if (finding.bytes != 0)
        text = std::string(finding.known == audit::Known::exactly ? "" : "at least ") +
               std::to_string(finding.bytes) + (finding.bytes == 1 ? " byte " : " bytes ");
    constexpr std::array<std::string_view, 3> sides = {"in", "before", "past the end of"};
    text += sides[static_cast<std::size_t>(finding.side)];
    text += " \"" + finding.buffer + "\"";
    if (!finding.range.empty())
        text += " (" + std::to_string(finding.range.size().value()) + " bytes at " +
                hexadecimal(finding.range.start().value()) + ")";
    return text;
}

/// Highlights the headline, which begins with "ERROR: ".
[[nodiscard]] std::string with_loud_headline(const std::string& report) {
    const std::size_t begin = report.find("ERROR: ");
    if (begin == std::string::npos)
        return report;
    const std::size_t end = std::min(report.find('\n', begin), report.size());
    return report.substr(0, begin) + toned(Tone::bad, report.substr(begin, end - begin)) +
           report.substr(end);
}

/// ", behind smmuv3"; nothing for the default.
[[nodiscard]] std::string behind(const audit::Kind& kind) {
    const bool by_choice = kind.iommu != machine::qemu::IommuModel::intel;
    return by_choice ? ", behind " + std::string(name(kind.iommu)) : std::string();
}

/// The IOMMU's name, or null where moat does not choose it.
[[nodiscard]] ordered_json iommu_of(const audit::Kind& kind) {
    if (kind.machine != "qemu")
        return nullptr;
    return name(kind.iommu);
}

void print_finding(std::ostream& out, const Audited& audited, const Finding& finding) {
    std::string head = "== " + std::string(name(finding.kind)) + ": " + audited.report.driver +
                       ", \"" + finding.operation + "\"";
    if (const std::string text = where(finding); !text.empty())
        head += ", " + text;
    out << '\n'
        << toned(Tone::strong, head) << "\n   case " << finding.about.number << ": "
        << finding.about.length.value() << " bytes of data, placed "
        << name_of(finding.about.placement);
    if (finding.kind == audit::FindingKind::wrong_data)
        out << ", at position " << finding.about.position << " of the medium";
    out << "; the device reported " << name_of(finding.answer.verdict) << " ("
        << hexadecimal(finding.answer.code) << ")";
    if (finding.times != 1)
        out << "; found " << finding.times << " times";
    out << "\n   " << command_for(audited, finding) << '\n' << with_loud_headline(finding.report);
}

[[nodiscard]] ordered_json to_json(const audit::Origin& origin) {
    return {{"case", origin.case_number}, {"medium_byte", origin.at}};
}

[[nodiscard]] ordered_json to_json(const audit::WrongData& wrong) {
    ordered_json object{{"offset", wrong.offset}, {"expected", to_json(wrong.expected)}};
    object["found"] = nullptr;
    if (wrong.origin)
        object["found"] = to_json(*wrong.origin);
    return object;
}

[[nodiscard]] ordered_json to_json(const Audited& audited, const Finding& finding) {
    ordered_json line;
    line["schema"] = "moat.finding/1";
    line["machine"] = audited.kind.machine;
    line["device"] = audited.kind.name;
    line["iommu"] = iommu_of(audited.kind);
    line["class"] = name(finding.kind);
    line["operation"] = finding.operation;
    line["case"] = finding.about.number;
    line["first_case"] = finding.first_case;
    line["length"] = finding.about.length.value();
    line["placement"] = name_of(finding.about.placement);
    line["position"] = finding.about.position;
    line["buffer"] = nullptr;
    if (!finding.buffer.empty() && !finding.range.empty())
        line["buffer"] = {{"label", finding.buffer},
                          {"start", hexadecimal(finding.range.start().value())},
                          {"bytes", finding.range.size().value()}};
    line["side"] = fault::name(finding.side);
    line["bytes"] = finding.bytes;
    line["bytes_known"] = finding.known == audit::Known::exactly ? "exactly" : "at-least";
    line["says"] = name_of(finding.answer.verdict);
    line["code"] = hexadecimal(finding.answer.code);
    line["fault"] = nullptr;
    if (finding.record)
        line["fault"] = fault::to_string(*finding.record);
    line["contents"] = nullptr;
    if (finding.contents)
        line["contents"] = to_json(*finding.contents);
    line["times"] = finding.times;
    line["command"] = command_for(audited, finding);
    line["report"] = finding.report;
    return line;
}

[[nodiscard]] std::string_view access_of(const audit::Finding& finding) {
    if (finding.record)
        return fault::name(finding.record->access);
    return finding.kind == audit::FindingKind::read_outside ? "read" : "write";
}

/// The place where the stray access began.
[[nodiscard]] Iova address_of(const audit::Finding& finding) {
    if (finding.record && !finding.record->where.empty())
        return finding.record->where.start();
    if (finding.side == fault::Side::right && finding.range.last().value() + 1 != 0)
        return Iova(finding.range.last().value() + 1);
    return finding.range.start();
}

} // namespace

std::string command_for(const Audited& audited, const Finding& finding) {
    std::string command = audited.command + " --case " + std::to_string(finding.first_case);
    if (finding.first_case != finding.about.number)
        command += "-" + std::to_string(finding.about.number);
    return command;
}

void print_text(std::ostream& out, const Audited& audited) {
    const audit::DeviceReport& report = audited.report;
    const audit::Tally& tally = report.tally;
    out << audited.kind.name << " (" << audited.kind.machine << ", "
        << machine::to_string(report.address) << behind(audited.kind) << "): " << tally.cases
        << (tally.cases == 1 ? " operation, " : " operations, ")
        << to_string(ByteCount(tally.bytes)) << " of data, " << tally.refused
        << " rejected by the device, " << tally.sessions << " driver starts, " << std::fixed
        << std::setprecision(1) << audited.seconds << " s\n";
    out << "  buffer                  bytes to the guard before / after it\n";
    for (const audit::Blind& each : report.blind)
        out << "  " << std::left << std::setw(24) << each.label << std::right << std::setw(6)
            << each.before << " / " << each.after << '\n';
    out << "  In these bytes, canaries detect writes; reads go undetected.\n";
    if (report.caches_translations)
        out << "  The device caches translations (ATS); its domain invalidates them.\n";
    if (const std::string_view limits = audit::limits_of(audited.kind); !limits.empty())
        out << "  " << limits << '\n';
    if (report.findings.empty())
        out << "  " << toned(Tone::good, "no findings") << '\n';
    else
        out << "  "
            << toned(Tone::bad, std::to_string(tally.findings) + " findings, " +
                                    std::to_string(report.findings.size()) + " distinct")
            << '\n';
    for (const Finding& each : report.findings)
        print_finding(out, audited, each);
}

void print_json(std::ostream& out, const Audited& audited) {
    for (const Finding& each : audited.report.findings)
        out << text_of(to_json(audited, each)) << '\n';
    const audit::Tally& tally = audited.report.tally;
    ordered_json line;
    line["schema"] = "moat.audit/1";
    line["machine"] = audited.kind.machine;
    line["device"] = audited.kind.name;
    line["iommu"] = iommu_of(audited.kind);
    line["limits"] = audit::limits_of(audited.kind);
    line["address"] = machine::to_string(audited.report.address);
    line["ats"] = audited.report.caches_translations;
    line["first_case"] = audited.report.first_case;
    line["end_case"] = audited.report.end_case;
    line["operations"] = tally.cases;
    line["data_bytes"] = tally.bytes;
    line["refused"] = tally.refused;
    line["starts"] = tally.sessions;
    line["findings"] = tally.findings;
    line["distinct"] = audited.report.findings.size();
    line["ended_early"] = audited.report.ended_early;
    line["unseen_reads"] = ordered_json::array();
    for (const audit::Blind& each : audited.report.blind)
        line["unseen_reads"].push_back(
            {{"label", each.label}, {"before", each.before}, {"after", each.after}});
    line["seconds"] = audited.seconds;
    line["command"] = audited.command;
    out << text_of(line) << '\n';
}

void AuditPicture::observe(machine::Machine& machine, audit::AuditOptions& options) {
    machine_ = &machine;
    begin_ = machine.now();
    guard_ = (options.guard.value() + 4095) / 4096 * 4096;
    options.lived = [this](const audit::Lived& lived) {
        end_ = since_begin(machine_->now());
        if (rows_.size() == most_rows)
            return;
        newest_[lived.placed.range.start()] = rows_.size();
        rows_.push_back({std::string(lived.placed.label), std::string(lived.operation),
                         lived.placed.range, since_begin(lived.placed_at),
                         lived.unmapped_at ? since_begin(*lived.unmapped_at) : -1,
                         lived.placed.case_number});
    };
    options.found = [this](const audit::Finding& finding) {
        end_ = since_begin(machine_->now());
        // Blocked accesses have their own mark.
        if (finding.range.empty() || finding.kind == audit::FindingKind::success_though_blocked)
            return;
        if (const auto row = newest_.find(finding.range.start()); row != newest_.end())
            marks_.push_back({finding, row->second, end_});
    };
}

ordered_json AuditPicture::take(const Audited& audited) {
    PictureTexts texts;
    const std::string device = std::string(audited.kind.name);
    const std::size_t device_number = texts.number(device);
    ordered_json data;
    data["moat"] = 1;
    data["kind"] = "space";
    data["title"] = audited.command;
    data["page"] = 4096;
    data["end"] = end_ + 1;
    std::uint64_t low = ~std::uint64_t{0};
    std::uint64_t high = 0;
    ordered_json mappings = ordered_json::array();
    for (const Row& row : rows_) {
        const std::uint64_t start = row.range.start().value();
        low = std::min(low, start - std::min(start, guard_));
        high = std::max(high, row.range.last().value() + guard_);
        mappings.push_back({hexadecimal(start), row.range.size().value(), guard_, guard_,
                            row.placed_at, row.unmapped_at, -1, texts.number(row.label),
                            device_number, texts.number(row.operation), row.case_number});
    }
    data["aperture"] = {hexadecimal(rows_.empty() ? 0 : low), hexadecimal(high + 1)};
    data["mappings"] = std::move(mappings);
    data["reserved"] = ordered_json::array();
    data["faults"] = ordered_json::array();
    for (const Mark& mark : marks_)
        data["faults"].push_back(
            {{"address", hexadecimal(address_of(mark.finding).value())},
             {"size", std::max<std::uint64_t>(mark.finding.bytes, 1)},
             {"access", access_of(mark.finding)},
             {"device", device},
             {"time", mark.time},
             {"mapping", mark.row},
             {"report", std::string(name(mark.finding.kind)) + ", case " +
                            std::to_string(mark.finding.about.number) + "\n" +
                            command_for(audited, mark.finding) + "\n" + mark.finding.report}});
    data["strings"] = texts.all();
    rows_.clear();
    newest_.clear();
    marks_.clear();
    end_ = 0;
    return data;
}

} // namespace moat::tools
