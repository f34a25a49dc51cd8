// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_host/uapi.hpp"
#include "run/vfio_kernel/argument.hpp"

namespace moat::run::vfio {

void CapabilityChain::add(std::uint16_t id, std::span<const std::byte> body) {
    constexpr std::size_t alignment = sizeof(std::uint64_t);
    const std::size_t at = (bytes_.size() + alignment - 1) / alignment * alignment;
    if (!bytes_.empty()) {
        const auto next = static_cast<std::uint32_t>(head_bytes_ + at);
        std::memcpy(bytes_.data() + last_ + offsetof(vfio_info_cap_header, next), &next,
                    sizeof next);
    }
    const vfio_info_cap_header header{.id = id, .version = 1, .next = 0};
    bytes_.resize(at + sizeof header + body.size());
    std::memcpy(bytes_.data() + at, &header, sizeof header);
    std::ranges::copy(body, bytes_.begin() + static_cast<std::ptrdiff_t>(at + sizeof header));
    last_ = at;
}

void CapabilityChain::place(std::span<std::byte> argument, std::uint32_t& argsz,
                            std::uint32_t& flags, std::uint32_t flag, std::uint32_t& offset) const {
    if (bytes_.empty())
        return;
    flags |= flag;
    const std::size_t all = head_bytes_ + bytes_.size();
    if (argsz < all || argument.size() < all) {
        argsz = static_cast<std::uint32_t>(all);
        offset = 0;
        return;
    }
    std::ranges::copy(bytes_, argument.begin() + static_cast<std::ptrdiff_t>(head_bytes_));
    offset = static_cast<std::uint32_t>(head_bytes_);
}

} // namespace moat::run::vfio
