// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/findings.hpp"

#include "moat/core/text.hpp"

#include <algorithm>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace moat::run {

namespace {

/// The mapping that a diagnosis is about, living or past.
[[nodiscard]] const fault::Mapping* subject(const fault::Diagnosis& diagnosis) {
    if (diagnosis.kind == fault::Kind::use_after_unmap)
        return &diagnosis.past->mapping;
    return diagnosis.mapping ? &*diagnosis.mapping : nullptr;
}

[[nodiscard]] std::string map_site(const fault::Diagnosis& diagnosis) {
    std::string site{name(diagnosis.record.access)};
    if (const fault::Mapping* const mapping = subject(diagnosis))
        for (const std::uintptr_t frame : mapping->mapped.stack)
            site += ' ' + std::to_string(frame);
    return site;
}

} // namespace

Findings::Findings(std::string path, Tally& tally, fault::Symbolise symbolise, Print print,
                   std::uint64_t process)
    : path_(std::move(path)), tally_(tally), report_{.process_id = process, .symbolise = symbolise},
      print_(std::move(print)) {}

bool Findings::is_new(const Key& key) {
    ++tally_.findings;
    if (const auto found = seen_.find(key); found != seen_.end()) {
        ++found->second;
        return false;
    }
    if (seen_.size() == most_printed)
        return false;
    seen_.emplace(key, 1);
    return true;
}

void Findings::stray(const fault::Diagnosis& diagnosis, const Circumstances& circumstances) {
    fault::ReportOptions options = report_;
    options.device = circumstances.device.substr(0, circumstances.device.find(' '));
    const bool first = is_new({std::string(name(diagnosis.kind)), std::string(circumstances.device),
                               map_site(diagnosis)});
    append(json_report(diagnosis, options));
    if (first)
        print(text_report(diagnosis, options), circumstances);
}

void Findings::remark(std::string_view kind, std::string_view sentence,
                      const Circumstances& circumstances) {
    const bool first =
        is_new({std::string(kind), std::string(circumstances.device), std::string(sentence)});
    append(nlohmann::ordered_json{{"schema", "moat.mistake/1"},
                                  {"kind", kind},
                                  {"device", circumstances.device},
                                  {"text", sentence}}
               .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    if (first)
        print("==" + std::to_string(report_.process_id) + "==ERROR: moat: " + std::string(kind) +
                  ": " + std::string(sentence) + '\n',
              circumstances);
}

void Findings::print(const std::string& text, const Circumstances& circumstances) {
    std::string more;
    if (!circumstances.unmapped.stack.empty())
        more += event_text("unmapped", circumstances.unmapped, report_);
    if (!circumstances.told.stack.empty())
        more += event_text("last register write", circumstances.told, report_);
    for (const std::string& note : circumstances.notes)
        more += "note: " + note + '\n';
    std::string whole = text;
    whole.insert(std::min(whole.rfind("SUMMARY: "), whole.size()), more);
    print_(whole);
}

/// One write a line: other processes append to the same file.
void Findings::append(const std::string& json) {
    if (path_.empty())
        return;
    const int file = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        return;
    const std::string line = json + '\n';
    (void)!::write(file, line.data(), line.size());
    ::close(file);
}

} // namespace moat::run
