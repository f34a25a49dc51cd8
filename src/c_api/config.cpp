// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The options' grammar is dma/options.hpp's; here their fields are held against moat.h's numbers.
#include "config.hpp"

#include "moat/dma/reporter.hpp"

#include <iostream>

namespace moat::c_api {

namespace {

using dma::Level;
using dma::Placement;
using dma::Unmapping;

static_assert(static_cast<int>(Level::guard) == MOAT_LEVEL_GUARD &&
              static_cast<int>(Level::track) == MOAT_LEVEL_TRACK &&
              static_cast<int>(Level::exact) == MOAT_LEVEL_EXACT);
static_assert(static_cast<int>(Placement::right) == MOAT_PLACEMENT_RIGHT &&
              static_cast<int>(Placement::left) == MOAT_PLACEMENT_LEFT);
static_assert(static_cast<int>(Unmapping::strict) == MOAT_UNMAPPING_STRICT &&
              static_cast<int>(Unmapping::deferred) == MOAT_UNMAPPING_DEFERRED);
static_assert(static_cast<int>(dma::Direction::to_device) == MOAT_TO_DEVICE &&
              static_cast<int>(dma::Direction::from_device) == MOAT_FROM_DEVICE &&
              static_cast<int>(dma::Direction::bidirectional) == MOAT_BIDIRECTIONAL);

[[nodiscard]] std::uint32_t unsigned_of(std::int32_t number) {
    return static_cast<std::uint32_t>(number);
}

/// Unsigned, so that one comparison finds what is below 0 too.
[[nodiscard]] bool is_among(std::int32_t number, std::int32_t last) {
    return unsigned_of(number) <= unsigned_of(last);
}

} // namespace

moat_config usual_config() {
    const dma::Options usual;
    return {.size = sizeof(moat_config),
            .backend = MOAT_BACKEND_SOFT,
            .flags = 0,
            .level = static_cast<std::int32_t>(usual.level),
            .placement = static_cast<std::int32_t>(usual.placement),
            .unmapping = static_cast<std::int32_t>(usual.unmapping),
            .guard_bytes = usual.guard.value(),
            .guard_before_bytes = usual.guard_before.value(),
            .quarantine_bytes = usual.quarantine.value(),
            .dma_mask = ~std::uint64_t{0},
            .history = usual.history,
            .stacks = usual.stacks,
            .tables = 4096,
            .reserved = 0,
            .options = nullptr,
            .on_fault = nullptr,
            .on_driver_error = nullptr,
            .context = nullptr};
}

std::expected<dma::Options, Failure> options_of(const moat_config& config) {
    if (!is_among(config.level, MOAT_LEVEL_EXACT))
        return invalid("moat_config.level is none of MOAT_LEVEL_...", "level",
                       unsigned_of(config.level));
    if (!is_among(config.placement, MOAT_PLACEMENT_LEFT))
        return invalid("moat_config.placement is none of MOAT_PLACEMENT_...", "placement",
                       unsigned_of(config.placement));
    if (!is_among(config.unmapping, MOAT_UNMAPPING_DEFERRED))
        return invalid("moat_config.unmapping is none of MOAT_UNMAPPING_...", "unmapping",
                       unsigned_of(config.unmapping));
    if ((config.flags & ~std::uint32_t{MOAT_READ_ENVIRONMENT}) != 0)
        return invalid("moat_config.flags has an unknown flag", "flags", config.flags);
    if (config.history == 0)
        return invalid("moat_config.history is 1 or more; moat_config_init fills it in", "history",
                       config.history);
    dma::Options options;
    options.level = static_cast<Level>(config.level);
    options.placement = static_cast<Placement>(config.placement);
    options.unmapping = static_cast<Unmapping>(config.unmapping);
    options.guard = ByteCount(config.guard_bytes);
    options.guard_before = ByteCount(config.guard_before_bytes);
    options.quarantine = ByteCount(config.quarantine_bytes);
    options.history = config.history;
    options.stacks = config.stacks;
    if (config.options != nullptr) {
        const auto parsed = dma::parse_options(config.options, options);
        if (!parsed)
            return invalid(parsed.error());
        options = *parsed;
    }
    if ((config.flags & MOAT_READ_ENVIRONMENT) == 0)
        return options;
    const auto read = dma::options_from_environment(std::cerr, options);
    if (!read)
        return invalid(read.error());
    return *read;
}

std::expected<dma::Direction, Failure> direction_of(std::int32_t number) {
    if (!is_among(number, MOAT_BIDIRECTIONAL))
        return invalid("the direction is none of MOAT_TO_DEVICE, MOAT_FROM_DEVICE and "
                       "MOAT_BIDIRECTIONAL",
                       "direction", unsigned_of(number));
    return static_cast<dma::Direction>(number);
}

} // namespace moat::c_api
