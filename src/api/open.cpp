// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The options' grammar is dma/options.hpp's.
#include "open.hpp"

#include "moat/core/text.hpp"

#include "dma/reporter.hpp"

#include <iostream>

namespace moat::api {

namespace {

constexpr std::uint32_t most_tables = 1U << 20; // 4 GiB of them

[[nodiscard]] std::string with_value(const char* sentence, const char* name, std::uint64_t value) {
    return std::string(sentence) + " (" + name + "=" + hexadecimal(value) + ")";
}

/// Enumerations may hold any number: who casts one is a caller like any other.
[[nodiscard]] std::string what_is_wrong(const ContainerConfig& config) {
    const auto number = [](auto value) { return static_cast<std::uint64_t>(value); };
    if (config.backend > Backend::qemu)
        return with_value("no such backend", "backend", number(config.backend));
    if (config.level > Level::exact)
        return with_value("no such level", "level", number(config.level));
    if (config.placement > Placement::left)
        return with_value("no such placement", "placement", number(config.placement));
    if (config.unmapping > Unmapping::deferred)
        return with_value("no such way to unmap", "unmapping", number(config.unmapping));
    if (config.history == 0)
        return with_value("`history` is 1 or more", "history", 0);
    if (config.tables == 0 || config.tables > most_tables)
        return with_value("`tables` is 1 to 2^20", "tables", config.tables);
    if (config.backend == Backend::qemu && config.qemu.devices.empty())
        return "Backend::qemu needs a device: name it in `qemu.devices`, such as \"edu,addr=4\"";
    return {};
}

} // namespace

std::expected<dma::Options, std::string> options_of(const ContainerConfig& config) {
    if (std::string wrong = what_is_wrong(config); !wrong.empty())
        return std::unexpected(std::move(wrong));
    dma::Options options;
    options.level = config.level;
    options.placement = config.placement;
    options.unmapping = config.unmapping;
    options.guard = config.guard;
    options.guard_before = config.guard_before;
    options.quarantine = config.quarantine;
    options.history = config.history;
    options.stacks = config.stacks;
    if (!config.options.empty()) {
        auto parsed = dma::parse_options(config.options, options);
        if (!parsed)
            return parsed;
        options = *parsed;
    }
    return config.environment == Environment::read
               ? dma::options_from_environment(std::cerr, options)
               : options;
}

} // namespace moat::api
