// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DeviceRegion: a stretch of physical addresses that is not RAM: a BAR, or device memory with page
// structs, as DAX has. PhysicalMemory owns regions; mappings of them are VMAs.
#pragma once

#include "moat/core/range.hpp"
#include "moat/mm/frame.hpp"

#include <atomic>
#include <cstdint>
#include <span>

namespace moat::mm {

enum class RegionKind : std::uint8_t {
    registers,   ///< no page structs: its leaves are special, and never split
    page_structs ///< a frame for each page, counted like those of RAM
};

template <SyncPolicy Sync>
class DeviceRegion {
  public:
    DeviceRegion() = default;

    DeviceRegion(PhysicalRange range, RegionKind kind, std::span<Frame<Sync>> frames)
        : range_(range), kind_(kind), frames_(frames) {}

    [[nodiscard]] PhysicalRange range() const { return range_; }

    [[nodiscard]] RegionKind kind() const { return kind_; }

    /// The page struct of `address`, which lies in the region; the region has some.
    [[nodiscard]] Frame<Sync>& frame(PhysicalAddress address) const {
        return frames_[(address.value() - range_.start().value()) >> frame_lg2];
    }

    /// Whether accesses fault. A fault tests it under its block's lock, so setting it and then
    /// zapping leaves no leaf behind.
    [[nodiscard]] bool revoked() const { return revoked_.load(std::memory_order_acquire) != 0; }

    void set_revoked(bool revoked) { revoked_.store(revoked ? 1 : 0, std::memory_order_release); }

  private:
    PhysicalRange range_;
    RegionKind kind_ = RegionKind::registers;
    std::span<Frame<Sync>> frames_;
    typename Sync::template Atomic<std::uint8_t> revoked_{0};
};

} // namespace moat::mm
