// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The options --html FILE and --trace FILE: a picture's data (docs/picture.md) as a page that a
// browser shows without a network, and as trace events. The page needs npm at build time.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace CLI {
class App;
} // namespace CLI

namespace moat::tools {

class PictureFiles {
  public:
    void add_options(CLI::App& command, const std::string& about_html,
                     const std::string& about_trace);

    [[nodiscard]] bool wanted() const { return !html_.empty() || !trace_.empty(); }

    [[nodiscard]] const std::string& html() const { return html_; }

    [[nodiscard]] const std::string& trace() const { return trace_; }

    /// Writes the requested files: the page of the first picture, the events of all. Return: false
    /// after reporting, as `who`, one that cannot be written and may be incomplete.
    [[nodiscard]] bool write(const char* who,
                             std::span<const nlohmann::ordered_json> pictures) const;

  private:
    std::string html_;
    std::string trace_;
};

} // namespace moat::tools
