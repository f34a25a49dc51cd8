// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Errors about what a caller named, away from the path of calls that succeed.
#include "moat/core/range.hpp"

#include "space_core.hpp"

namespace moat::api {

std::unexpected<Error> bad_memory(std::span<std::byte> memory, Direction direction) {
    const auto start = reinterpret_cast<std::uintptr_t>(memory.data());
    if (!is_one(direction))
        return fail(ErrorCode::unsupported, "no such direction",
                    {"direction", static_cast<std::uint64_t>(direction)});
    if (memory.empty())
        return fail(ErrorCode::empty, "the memory is empty");
    if (start == 0)
        return fail(ErrorCode::out_of_range, "the memory is null", {"bytes", memory.size()});
    return fail(ErrorCode::overflow, "the memory ends past 2^64", {"memory", start},
                {"bytes", memory.size()});
}

Result<void> check_range(std::uint64_t start, std::uint64_t bytes) {
    if (bytes == 0)
        return fail(ErrorCode::empty, "the range has no length", {"start", start});
    MOAT_TRY(IovaRange::make(Iova(start), ByteCount(bytes)));
    return {};
}

} // namespace moat::api
