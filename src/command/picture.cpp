// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The page around the data. Escapes "<", so that no data ends the script element.
#include "picture.hpp"

#include "picture_page.hpp"

#include <fstream>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

[[nodiscard]] std::string for_script(const nlohmann::ordered_json& data) {
    const auto replace = nlohmann::ordered_json::error_handler_t::replace;
    std::string escaped;
    for (const char c : data.dump(-1, ' ', false, replace))
        if (c == '<')
            escaped += "\\u003c";
        else
            escaped += c;
    return escaped;
}

} // namespace

Result<void> write_picture(const std::string& file, const nlohmann::ordered_json& data) {
    std::ofstream out(file, std::ios::binary);
    out << picture_before_data << for_script(data) << picture_after_data;
    out.close();
    if (!out)
        return fail(ErrorCode::io, "the page was written incompletely");
    return {};
}

} // namespace moat::tools
