// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A half-open range of addresses whose arithmetic cannot overflow, up to the last byte of 2^64.
// Used wherever two numbers would otherwise travel as a pair.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"

#include <concepts>
#include <cstdint>
#include <limits>

namespace moat {

/// [start, start + size). A range may end at 2^64, where `end()` has no value but `last()` has.
/// `Addr` is an Address.
template <class Addr>
class Range {
  public:
    constexpr Range() = default;

    /// A range that passes 2^64 is a programmer's error; `make` is for input from outside.
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

    /// The address of the last byte; an empty range has none.
    [[nodiscard]] constexpr Addr last() const {
        MOAT_CHECK(!empty(), "an empty range has no last byte");
        return Addr(start_.value() + (size_.value() - 1));
    }

    /// One past the last byte; a range that ends at 2^64 has none.
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

    /// What both share; empty where they share nothing.
    [[nodiscard]] constexpr Range intersection(const Range& other) const {
        if (!overlaps(other))
            return {};
        return inclusive(start_ < other.start_ ? other.start_ : start_,
                         last() < other.last() ? last() : other.last());
    }

    /// The smallest range that holds both, with whatever lies between them. From address 0 to the
    /// top it would have 2^64 bytes, which is a programmer's error.
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
