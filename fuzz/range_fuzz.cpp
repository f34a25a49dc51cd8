// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Ranges of arbitrary numbers against arithmetic that is wide enough not to overflow.
#include "moat/core/range.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

using namespace moat;

__extension__ using Wide = unsigned __int128;

/// Start and one past the end, as numbers that hold 2^64.
struct Model {
    Wide start;
    Wide end;

    explicit Model(const IovaRange& range)
        : start(range.start().value()), end(start + range.size().value()) {}

    [[nodiscard]] bool empty() const { return start == end; }
};

void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

void compare(const IovaRange& a, const IovaRange& b) {
    const Model x(a);
    const Model y(b);
    const Wide first = x.start > y.start ? x.start : y.start;
    const Wide end = x.end < y.end ? x.end : y.end;
    const bool overlap = first < end && !x.empty() && !y.empty();
    require(a.overlaps(b) == overlap);
    require(a.contains(b) == (y.empty() || (x.start <= y.start && y.end <= x.end)));
    const Model shared(a.intersection(b));
    require(overlap ? shared.start == first && shared.end == end : shared.empty());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::uint64_t numbers[4];
    if (size < sizeof numbers)
        return 0;
    std::memcpy(numbers, data, sizeof numbers);
    const auto a = IovaRange::make(Iova(numbers[0]), ByteCount(numbers[1]));
    const auto b = IovaRange::make(Iova(numbers[2]), ByteCount(numbers[3]));
    require(a.has_value() == (Wide{numbers[0]} + numbers[1] <= Wide{1} << 64));
    if (a && b)
        compare(*a, *b);
    return 0;
}
