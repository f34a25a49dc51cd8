// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat.h's numbers are held against the enumerations of moat.hpp here.
#include "config.hpp"

namespace moat::api::c {

namespace {

static_assert(static_cast<int>(Backend::soft) == MOAT_BACKEND_SOFT &&
              static_cast<int>(Backend::vfio) == MOAT_BACKEND_VFIO &&
              static_cast<int>(Backend::type1) == MOAT_BACKEND_TYPE1 &&
              static_cast<int>(Backend::iommufd) == MOAT_BACKEND_IOMMUFD);
static_assert(static_cast<int>(Level::guard) == MOAT_LEVEL_GUARD &&
              static_cast<int>(Level::track) == MOAT_LEVEL_TRACK &&
              static_cast<int>(Level::exact) == MOAT_LEVEL_EXACT);
static_assert(static_cast<int>(Placement::right) == MOAT_PLACEMENT_RIGHT &&
              static_cast<int>(Placement::left) == MOAT_PLACEMENT_LEFT);
static_assert(static_cast<int>(Unmapping::strict) == MOAT_UNMAPPING_STRICT &&
              static_cast<int>(Unmapping::deferred) == MOAT_UNMAPPING_DEFERRED);
static_assert(static_cast<int>(Direction::to_device) == MOAT_TO_DEVICE &&
              static_cast<int>(Direction::from_device) == MOAT_FROM_DEVICE &&
              static_cast<int>(Direction::bidirectional) == MOAT_BIDIRECTIONAL);

[[nodiscard]] std::uint32_t unsigned_of(std::int32_t number) {
    return static_cast<std::uint32_t>(number);
}

/// Unsigned, so that one comparison finds what is below 0 too.
[[nodiscard]] bool is_among(std::int32_t number, std::int32_t last) {
    return unsigned_of(number) <= unsigned_of(last);
}

} // namespace

moat_config usual_config() {
    const ContainerConfig usual;
    return {.size = sizeof(moat_config),
            .backend = MOAT_BACKEND_SOFT,
            .flags = 0,
            .level = static_cast<std::int32_t>(usual.level),
            .placement = static_cast<std::int32_t>(usual.placement),
            .unmapping = static_cast<std::int32_t>(usual.unmapping),
            .guard_bytes = usual.guard.value(),
            .guard_before_bytes = usual.guard_before.value(),
            .quarantine_bytes = usual.quarantine.value(),
            .dma_mask = usual.dma_mask,
            .history = usual.history,
            .stacks = usual.stacks,
            .tables = usual.tables,
            .reserved = 0,
            .options = nullptr,
            .on_fault = nullptr,
            .on_driver_error = nullptr,
            .context = nullptr};
}

std::expected<ContainerConfig, Failure> config_for_cpp(const moat_config& config) {
    if (!is_among(config.backend, MOAT_BACKEND_IOMMUFD))
        return invalid("moat_config.backend is none of MOAT_BACKEND_...", "backend",
                       unsigned_of(config.backend));
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
    return ContainerConfig{
        .backend = static_cast<Backend>(config.backend),
        .level = static_cast<Level>(config.level),
        .guard = ByteCount(config.guard_bytes),
        .guard_before = ByteCount(config.guard_before_bytes),
        .placement = static_cast<Placement>(config.placement),
        .unmapping = static_cast<Unmapping>(config.unmapping),
        .quarantine = ByteCount(config.quarantine_bytes),
        .dma_mask = config.dma_mask,
        .history = config.history,
        .stacks = config.stacks,
        .tables = config.tables,
        .options = config.options != nullptr ? config.options : std::string_view(),
        .environment =
            (config.flags & MOAT_READ_ENVIRONMENT) != 0 ? Environment::read : Environment::ignore};
}

std::expected<Direction, Failure> direction_of(std::int32_t number) {
    if (!is_among(number, MOAT_BIDIRECTIONAL))
        return invalid("the direction is none of MOAT_TO_DEVICE, MOAT_FROM_DEVICE and "
                       "MOAT_BIDIRECTIONAL",
                       "direction", unsigned_of(number));
    return static_cast<Direction>(number);
}

} // namespace moat::api::c
