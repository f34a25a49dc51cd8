// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MOAT_TRY and MOAT_LET: a call whose error the calling function returns as its own.
#pragma once

#include "moat/core/result.hpp"

#include <utility>

// __LINE__ is expanded only by the second of two macros.
#define MOAT_JOINED_(a, b) a##b
#define MOAT_JOINED(a, b) MOAT_JOINED_(a, b)
#define MOAT_TRIED MOAT_JOINED(moat_tried_, __LINE__)

/// Returns the error of a Result from the calling function, if it has one. Ignores a value.
/// `MOAT_TRY(domain.unmap(start, size));`
#define MOAT_TRY(...)                                                                              \
    do {                                                                                           \
        if (auto MOAT_TRIED = (__VA_ARGS__); !MOAT_TRIED) [[unlikely]]                             \
            return std::unexpected(std::move(MOAT_TRIED).error());                                 \
    } while (false)

/// The same; `declaration` gets the value. Two statements, so not the whole body of an `if`.
/// `MOAT_LET(auto domain, machine.create_domain());`
#define MOAT_LET(declaration, ...)                                                                 \
    auto MOAT_TRIED = (__VA_ARGS__);                                                               \
    if (!MOAT_TRIED) [[unlikely]]                                                                  \
        return std::unexpected(std::move(MOAT_TRIED).error());                                     \
    declaration = *std::move(MOAT_TRIED)
