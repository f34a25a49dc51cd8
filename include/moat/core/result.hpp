// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Result<T>: a value or an Error. Functions with expected failures return one and are
// [[nodiscard]], since g++ 12's std::expected is not; lint reports ignored results too.
#pragma once

#include "moat/core/error.hpp"

#include <expected>

namespace moat {

template <class T>
using Result = std::expected<T, Error>;

/// `return fail(ErrorCode::overlap, "...", {"start", start});`
[[nodiscard, gnu::cold]] constexpr std::unexpected<Error> fail(ErrorCode code, const char* sentence,
                                                               ErrorValue a = {}, ErrorValue b = {},
                                                               ErrorValue c = {},
                                                               ErrorValue d = {}) {
    return std::unexpected<Error>(Error(code, sentence, a, b, c, d));
}

} // namespace moat
