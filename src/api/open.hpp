// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a ContainerConfig, its options and MOAT_OPTIONS ask for. Container::open and moat.h call it.
#pragma once

#include "moat/dma/options.hpp"
#include "moat/moat.hpp"

#include <expected>
#include <string>

namespace moat::api {

/// Return: the options; or a sentence that names what was wrong and what would be right. Reads the
/// environment if `config` says so.
[[nodiscard]] std::expected<dma::Options, std::string> options_of(const ContainerConfig& config);

/// A container with those options. Errors: Container::open's.
[[nodiscard]] Result<Container> open(const ContainerConfig& config, const dma::Options& options);

/// A sentence for an Error, whose sentences live for ever: so the first few are kept, then
/// `otherwise` stands for every other one. Thread-safe. Throws std::bad_alloc.
[[nodiscard]] const char* keep_sentence(const std::string& sentence, const char* otherwise);

} // namespace moat::api
