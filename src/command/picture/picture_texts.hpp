// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The texts of a picture (docs/picture.md, `strings`), each once and by its number.
#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace moat::tools {

class PictureTexts {
  public:
    std::size_t number(const std::string& text) {
        const auto [found, is_new] = numbers_.emplace(text, texts_.size());
        if (is_new)
            texts_.push_back(text);
        return found->second;
    }

    [[nodiscard]] const nlohmann::ordered_json& all() const { return texts_; }

  private:
    std::map<std::string, std::size_t> numbers_;
    nlohmann::ordered_json texts_ = nlohmann::ordered_json::array();
};

} // namespace moat::tools
