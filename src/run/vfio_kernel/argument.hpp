// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The bytes of an ioctl's argument, as Linux copies them: structures that begin with their size.
#pragma once

#include "run/vfio_kernel/vfio_kernel.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace moat::run::vfio {

/// Of an argument, as far as it is read.
inline constexpr std::size_t most_bytes = 16 << 10; // MSI-X has 2,048 vectors

/// `error` is of errno's numbers; 0 is success.
[[nodiscard]] inline Answer answer(int error) {
    return {.value = -std::int64_t{error}};
}

/// The directions of a map's flags: 1 read, 2 write.
[[nodiscard]] constexpr fault::Allows allows(std::uint32_t directions) {
    return static_cast<fault::Allows>(directions & 3U);
}

/// The same of an iommufd's map.
[[nodiscard]] constexpr fault::Allows ioas_allows(std::uint32_t flags) {
    return allows((flags >> 2U & 1U) | (flags & 2U));
}

static_assert(ioas_allows(2) == fault::Allows::write && ioas_allows(4) == fault::Allows::read);
static_assert(allows(1) == fault::Allows::read && allows(2) == fault::Allows::write &&
              allows(3) == fault::Allows::read_write);

/// Return: false if the bytes do not reach so far; `value` is unchanged.
template <class T>
[[nodiscard]] bool copy_in(std::span<const std::byte> bytes, std::size_t offset, T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (offset > bytes.size() || bytes.size() - offset < sizeof value)
        return false;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return true;
}

/// Copies the first `least` bytes of a structure that begins with argsz. Return: EINVAL if argsz is
/// less, EFAULT if the program's memory is.
template <class T>
[[nodiscard]] int take(std::span<const std::byte> argument, std::size_t least, T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::uint32_t argsz = 0;
    if (argument.size() < least || !copy_in(argument, 0, argsz))
        return EFAULT;
    if (argsz < least)
        return EINVAL;
    std::memcpy(&value, argument.data(), std::min(least, sizeof value));
    return 0;
}

/// Copies a structure of iommufd that begins with its size, as much as there is of it; the rest is
/// zero. Return: EINVAL if the size is below `least`, E2BIG if what lies behind the structure is
/// not zero, EFAULT.
template <class T>
[[nodiscard]] int take_sized(std::span<const std::byte> argument, std::size_t least, T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::uint32_t size = 0;
    if (!copy_in(argument, 0, size))
        return EFAULT;
    if (size < least)
        return EINVAL;
    if (argument.size() < std::min<std::size_t>(size, most_bytes))
        return EFAULT;
    const std::span<const std::byte> given =
        argument.first(std::min<std::size_t>(size, argument.size()));
    if (size > sizeof value && std::ranges::any_of(given.subspan(sizeof value), [](std::byte each) {
            return each != std::byte{0};
        }))
        return E2BIG;
    std::array<std::byte, sizeof value> whole{};
    std::ranges::copy(given.first(std::min(given.size(), sizeof value)), whole.begin());
    std::memcpy(&value, whole.data(), sizeof value);
    return 0;
}

/// Writes the first `bytes` of `value` to the argument, as far as both reach.
template <class T>
void give(std::span<std::byte> argument, const T& value, std::size_t bytes = sizeof(T)) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::memcpy(argument.data(), &value, std::min({bytes, argument.size(), sizeof value}));
}

/// The capabilities behind an INFO structure, each with a header that has the offset of the next.
class CapabilityChain {
  public:
    /// `head_bytes`: of the structure in front.
    explicit CapabilityChain(std::size_t head_bytes) : head_bytes_(head_bytes) {}

    /// `body`: what follows the header.
    void add(std::uint16_t id, std::span<const std::byte> body);

    /// Writes the chain behind the structure, if argsz has room, and sets these fields of it.
    void place(std::span<std::byte> argument, std::uint32_t& argsz, std::uint32_t& flags,
               std::uint32_t flag, std::uint32_t& offset) const;

  private:
    std::size_t head_bytes_;
    std::size_t last_ = 0; ///< where the header of the latest one lies in `bytes_`
    std::vector<std::byte> bytes_ = {};
};

} // namespace moat::run::vfio
