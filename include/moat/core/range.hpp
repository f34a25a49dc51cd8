// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A half-open range of addresses, up to 2^64, whose arithmetic cannot overflow.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"

#include <concepts>
#include <cstdint>
#include <limits>

namespace moat {

/// [start, start + size). A range may end at 2^64: then it has a `last()` but no `end()`.
/// `Addr` is an Address.
template <class Addr>
class Range {
  public:
    constexpr Range() = default;

    /// A range past 2^64 is a programmer error; `make` is for external input.
    constexpr Range(Addr start, ByteCount size) : start_(start), size_(size) {
        MOAT_CHECK(fits(start, size), "a range ends within 64 bits");
    }

    /// Return: the range, or `overflow` with both values.
    [[nodiscard]] static constexpr Result<Range> make(Addr start, ByteCount size) {
        if (!fits(start, size))
            return fail(ErrorCode::overflow, "the range ends past 2^64", {"start", start.value()},
                        {"size", size.value()});
        return Range(start, size);
    }

    /// [first, last], both inclusive.
    [[nodiscard]] static constexpr Range inclusive(Addr first, Addr last) {
        MOAT_CHECK(first <= last && last.value() - first.value() != max, "2^64 bytes do not fit");
        return Range(first, ByteCount(last.value() - first.value() + 1));
    }

    [[nodiscard]] constexpr Addr start() const { return start_; }

    [[nodiscard]] constexpr ByteCount size() const { return size_; }

    [[nodiscard]] constexpr bool empty() const { return size_ == ByteCount(0); }

    /// The address of the last byte. Not for an empty range.
    [[nodiscard]] constexpr Addr last() const {
        MOAT_CHECK(!empty(), "an empty range has no last byte");
        return Addr(start_.value() + (size_.value() - 1));
    }

    /// One past the last byte. Not for a range that ends at 2^64.
    [[nodiscard]] constexpr Addr end() const { return start_ + size_; }

    [[nodiscard]] constexpr bool contains(Addr address) const {
        return address >= start_ && address.value() - start_.value() < size_.value();
    }

    [[nodiscard]] constexpr bool contains(const Range& other) const {
        return other.empty() || (contains(other.start_) && contains(other.last()));
    }

    [[nodiscard]] constexpr bool overlaps(const Range& other) const {
        return !empty() && !other.empty() && start_ <= other.last() && other.start_ <= last();
    }

    /// The common part, or an empty range.
    [[nodiscard]] constexpr Range intersection(const Range& other) const {
        if (!overlaps(other))
            return {};
        return inclusive(start_ < other.start_ ? other.start_ : start_,
                         last() < other.last() ? last() : other.last());
    }

    /// The smallest range that contains both. One of 2^64 bytes is a programmer error.
    [[nodiscard]] constexpr Range hull(const Range& other) const {
        if (empty())
            return other;
        if (other.empty())
            return *this;
        return inclusive(start_ < other.start_ ? start_ : other.start_,
                         last() < other.last() ? other.last() : last());
    }

    friend constexpr bool operator==(const Range&, const Range&) = default;

  private:
    static constexpr std::uint64_t max = std::numeric_limits<std::uint64_t>::max();

    static constexpr bool fits(Addr start, ByteCount size) {
        return size.value() == 0 || size.value() - 1 <= max - start.value();
    }

    Addr start_{};
    ByteCount size_{};
};

using IovaRange = Range<Iova>;
using VirtualRange = Range<VirtualAddress>;
using PhysicalRange = Range<PhysicalAddress>;

} // namespace moat
