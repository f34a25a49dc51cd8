// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reports: where the conversations or the proxies of one device report to.
#pragma once

#include "run/findings.hpp"
#include "run/recorder.hpp"

#include <functional>
#include <string>
#include <string_view>

namespace moat::serve {

using Print = std::function<void(std::string_view text)>;

/// Everything outlives the conversations.
struct Reports {
    std::string name; ///< of the device
    run::Findings& findings;
    run::Recorder& recorder;
    run::Tally& tally;
    Print print;
};

} // namespace moat::serve
