// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An execution as the data of a picture of kind "schedule" (docs/picture.md).
// picture/ draws it; `moat explore` writes it with --html and
// --trace.
#pragma once

#include "lab/explore/machine.hpp"

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace moat::tools {

struct ScheduleTexts {
    std::string title;
    std::string claim;
    std::string replay; ///< the replay file
};

/// All steps of `machine`, and its violation.
[[nodiscard]] nlohmann::ordered_json schedule_picture(const explore::Machine& machine,
                                                      const ScheduleTexts& texts);

} // namespace moat::tools
