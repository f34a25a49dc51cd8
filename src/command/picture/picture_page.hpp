// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The page that shows a picture, split where its data goes. The text is bundled from src/.
// src/command/picture/picture.cpp writes it.
#pragma once

#include <string_view>

namespace moat::tools {

extern const std::string_view picture_before_data;
extern const std::string_view picture_after_data;

} // namespace moat::tools
