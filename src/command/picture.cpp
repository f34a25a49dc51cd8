// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "picture.hpp"

#include "output.hpp"
#include "picture_page.hpp"
#include "trace.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using nlohmann::ordered_json;

[[nodiscard]] std::string page_of([[maybe_unused]] const ordered_json& data) {
    std::string page;
#ifdef MOAT_HAS_PICTURE
    page = picture_before_data;
    for (const char c : text_of(data)) // escapes "<", so that no data ends the script element
        page += c == '<' ? "\\u003c" : std::string(1, c);
    page += picture_after_data;
#endif
    return page;
}

} // namespace

void PictureFiles::add_options(CLI::App& command, [[maybe_unused]] const std::string& about_html,
                               const std::string& about_trace) {
#ifdef MOAT_HAS_PICTURE
    command.add_option("--html", html_, about_html)->type_name("FILE");
#endif
    command.add_option("--trace", trace_, about_trace)->type_name("FILE");
}

bool PictureFiles::write(const char* who, std::span<const ordered_json> pictures) const {
    if (pictures.empty())
        return true;
    const bool page = html_.empty() || write_file(who, html_, page_of(pictures.front()));
    return (trace_.empty() || write_file(who, trace_, text_of(trace_events(pictures)) + '\n')) &&
           page;
}

} // namespace moat::tools
