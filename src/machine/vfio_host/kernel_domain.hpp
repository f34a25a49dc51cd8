// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain whose tables Linux keeps, by VFIO type1 or iommufd; capabilities describe the
// differences. VfioMachine creates it; dma::Space maps into it.
#pragma once

#include "machine/domain.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace moat::machine::vfio_host {

/// The kernel's interface.
enum class Backend : std::uint8_t { type1, iommufd };

[[nodiscard]] constexpr std::string_view name(Backend backend) {
    constexpr std::array<std::string_view, 2> names = {"type1", "iommufd"};
    return names[static_cast<std::size_t>(backend)];
}

/// The backends' differences. Constant once a function is attached.
struct KernelCapabilities {
    Backend backend = Backend::type1;
    /// Whether another device's BAR can be mapped, by its address in this process.
    bool peer_to_peer = false;
    bool dirty_tracking = false;
    /// Whether `unmap` skips unmapped ranges; otherwise they are not_found.
    bool unmaps_holes = false;
    /// The most mappings of a domain; nothing if pinned memory is the only limit.
    std::optional<std::uint32_t> most_mappings = {};
};

/// Memory is named by this process's own address and is readable and, if the device writes,
/// writable; the kernel pins it. Nothing can be mapped before a function is attached; limits are
/// known and constant from then on. Thread-safe, like the kernel.
///
/// Additional errors: `limit` (too many mappings, or RLIMIT_MEMLOCK), `overlap` (something is
/// mapped there), `busy` (readers of numa_maps keep removing a BAR's leaves under the kernel).
class KernelDomain : public Domain {
  public:
    [[nodiscard]] const iommu::DomainLimits& limits() const final { return limits_; }

    [[nodiscard]] const KernelCapabilities& capabilities() const { return capabilities_; }

    /// How many more mappings fit, if the kernel counts them. Errors: io.
    [[nodiscard]] virtual Result<std::optional<std::uint32_t>> mappings_left() const = 0;

    /// How often mapping a BAR was retried, because a process read numa_maps at the same time.
    /// Retries take time and use smaller pieces (mappings_left).
    [[nodiscard]] std::uint64_t map_retries() const {
        return map_retries_.load(std::memory_order_relaxed);
    }

  protected:
    /// Sets what devices reach, in ascending order; gaps are reserved. Errors: mismatch (other
    /// limits were set before), unsupported (no range at all).
    Result<void> set_limits(const std::vector<IovaRange>& reachable, std::uint64_t leaf_sizes);

    /// Whether [start, start + size) and `memory` are whole pages inside the limits.
    [[nodiscard]] Result<void> check(Iova start, ByteCount size, PhysicalAddress memory) const;

    KernelCapabilities capabilities_;
    std::atomic<std::uint64_t> map_retries_{0};

  private:
    iommu::DomainLimits limits_;
    std::vector<IovaRange> reserved_;
};

static_assert(iommu::DeferringDomain<KernelDomain>);

} // namespace moat::machine::vfio_host
