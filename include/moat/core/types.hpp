// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Distinct types for 64-bit numbers: three kinds of address and two counts. Their arithmetic checks
// for overflow. core/range.hpp has ranges.
#pragma once

#include "moat/core/check.hpp"

#include <compare>
#include <cstdint>

namespace moat {

/// A number of bytes.
class ByteCount {
  public:
    constexpr ByteCount() = default;

    constexpr explicit ByteCount(std::uint64_t bytes) : bytes_(bytes) {}

    [[nodiscard]] constexpr std::uint64_t value() const { return bytes_; }

    friend constexpr auto operator<=>(ByteCount, ByteCount) = default;

    /// A sum or difference that does not fit 64 bits is a programmer error.
    friend constexpr ByteCount operator+(ByteCount a, ByteCount b) {
        MOAT_CHECK(a.bytes_ + b.bytes_ >= a.bytes_, "a sum of byte counts fits 64 bits");
        return ByteCount(a.bytes_ + b.bytes_);
    }

    friend constexpr ByteCount operator-(ByteCount a, ByteCount b) {
        MOAT_CHECK(a.bytes_ >= b.bytes_, "a difference of byte counts is not negative");
        return ByteCount(a.bytes_ - b.bytes_);
    }

    constexpr ByteCount& operator+=(ByteCount other) { return *this = *this + other; }

  private:
    std::uint64_t bytes_ = 0;
};

/// A number of pages of the format's or the IOMMU's granule.
class PageCount {
  public:
    constexpr PageCount() = default;

    constexpr explicit PageCount(std::uint64_t pages) : pages_(pages) {}

    [[nodiscard]] constexpr std::uint64_t value() const { return pages_; }

    friend constexpr auto operator<=>(PageCount, PageCount) = default;

    [[nodiscard]] constexpr ByteCount bytes(unsigned page_lg2) const {
        MOAT_CHECK(page_lg2 < 64 && (pages_ << page_lg2) >> page_lg2 == pages_,
                   "a page count in bytes fits 64 bits");
        return ByteCount(pages_ << page_lg2);
    }

  private:
    std::uint64_t pages_ = 0;
};

/// An address in the space `Space`. Addresses of different spaces do not convert.
template <class Space>
class Address {
  public:
    constexpr Address() = default;

    constexpr explicit Address(std::uint64_t value) : value_(value) {}

    [[nodiscard]] constexpr std::uint64_t value() const { return value_; }

    friend constexpr auto operator<=>(Address, Address) = default;

    /// The address plus `bytes`; past 2^64 - 1 is a programmer error.
    friend constexpr Address operator+(Address address, ByteCount bytes) {
        MOAT_CHECK(address.value_ + bytes.value() >= address.value_, "an address fits 64 bits");
        return Address(address.value_ + bytes.value());
    }

    /// The distance from `b` to `a`, which is not below `b`.
    friend constexpr ByteCount operator-(Address a, Address b) {
        MOAT_CHECK(a.value_ >= b.value_, "a distance between addresses is not negative");
        return ByteCount(a.value_ - b.value_);
    }

  private:
    std::uint64_t value_ = 0;
};

/// I/O virtual address: a device's address before translation by its IOMMU.
using Iova = Address<struct IovaSpace>;
/// A CPU's address before translation.
using VirtualAddress = Address<struct VirtualSpace>;
/// An address on the memory bus: RAM, or a device's registers.
using PhysicalAddress = Address<struct PhysicalSpace>;

namespace literals {

constexpr ByteCount operator""_B(unsigned long long n) {
    return ByteCount(n);
}

constexpr ByteCount operator""_KiB(unsigned long long n) {
    return ByteCount(n << 10);
}

constexpr ByteCount operator""_MiB(unsigned long long n) {
    return ByteCount(n << 20);
}

constexpr ByteCount operator""_GiB(unsigned long long n) {
    return ByteCount(n << 30);
}

constexpr ByteCount operator""_TiB(unsigned long long n) {
    return ByteCount(n << 40);
}

} // namespace literals

} // namespace moat
