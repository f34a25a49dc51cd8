// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit_picture.hpp"

#include "moat/core/text.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using nlohmann::ordered_json;

/// Numbers texts, each once.
class Texts {
  public:
    std::size_t number(const std::string& text) {
        const auto [found, is_new] = numbers_.emplace(text, texts_.size());
        if (is_new)
            texts_.push_back(text);
        return found->second;
    }

    [[nodiscard]] const ordered_json& all() const { return texts_; }

  private:
    std::map<std::string, std::size_t> numbers_;
    ordered_json texts_ = ordered_json::array();
};

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
    Texts texts;
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
