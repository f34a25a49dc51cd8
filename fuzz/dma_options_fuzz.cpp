// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MOAT_OPTIONS of any bytes: accepted or refused with a sentence, and what was accepted reads the
// same when it is written out.
#include "moat/dma/options.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {

using namespace moat;
using namespace moat::dma;

void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

std::string written(const Options& options) {
    constexpr std::string_view levels[] = {"guard", "track", "exact"};
    const auto number = [](std::uint64_t value) { return std::to_string(value); };
    return "level=" + std::string(levels[static_cast<std::size_t>(options.level)]) +
           ":guard=" + number(options.guard.value()) +
           ":guard_before=" + number(options.guard_before.value()) +
           ":placement=" + (options.placement == Placement::right ? "right" : "left") +
           ":unmapping=" + (options.unmapping == Unmapping::strict ? "strict" : "deferred") +
           ":quarantine=" + number(options.quarantine.value()) +
           ":stacks=" + number(options.stacks) + ":history=" + number(options.history) +
           ":report=" + (options.report == ReportForm::text ? "text" : "json") +
           ":help=" + (options.help ? "1" : "0");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto options = parse_options(text);
    if (!options) {
        require(options.error().starts_with("MOAT_OPTIONS: "));
        return 0;
    }
    require(options->history != 0);
    const auto again = parse_options(written(*options));
    require(again.has_value() && written(*again) == written(*options));
    return 0;
}
