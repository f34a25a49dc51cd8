// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain whose tables Linux keeps: the same over VFIO type1 and over iommufd, and what differs
// between them as capabilities. How each speaks to the kernel is src/machine/vfio_host's.
// VfioMachine makes them; dma::Space maps into them.
#pragma once

#include "machine/domain.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace moat::machine::vfio_host {

/// Which of the kernel's interfaces.
enum class Backend : std::uint8_t { type1, iommufd };

[[nodiscard]] constexpr std::string_view name(Backend backend) {
    constexpr std::array<std::string_view, 2> names = {"type1", "iommufd"};
    return names[static_cast<std::size_t>(backend)];
}

/// What the backends differ in. Constant once a function is attached.
struct KernelCapabilities {
    Backend backend = Backend::type1;
    /// Whether another device's BAR can be mapped, by the address where it lies in this process.
    bool peer_to_peer = false;
    bool dirty_tracking = false;
    /// Whether `unmap` passes over ranges where nothing is mapped; else that is not_found.
    bool unmaps_holes = false;
    /// How many mappings a domain holds at most; none: as many as memory can be pinned.
    std::optional<std::uint32_t> most_mappings = {};
};

/// Memory is named by this process's own address, is readable and, where the device writes,
/// writable; the kernel pins it. Limits are known, and constant, from the first function on that is
/// attached; until then nothing can be mapped. Thread-safe, the kernel being so.
///
/// Errors beside the concept's: `limit` (as many mappings as there can be, or RLIMIT_MEMLOCK),
/// `overlap` (something is mapped there), `busy` (readers of numa_maps take a BAR's leaves from
/// under the kernel, however often it is tried).
class KernelDomain : public Domain {
  public:
    [[nodiscard]] const iommu::DomainLimits& limits() const final { return limits_; }

    [[nodiscard]] const KernelCapabilities& capabilities() const { return capabilities_; }

    /// How many more mappings fit, where the kernel counts. Errors: io.
    [[nodiscard]] virtual Result<std::optional<std::uint32_t>> mappings_left() const = 0;

    /// How often a BAR's map was tried again, because somebody read numa_maps meanwhile. Callers
    /// see it by the time that it takes, and by mappings_left: it is tried in smaller pieces.
    [[nodiscard]] std::uint64_t map_retries() const {
        return map_retries_.load(std::memory_order_relaxed);
    }

  protected:
    /// What devices reach, in ascending order; what lies between is reserved.
    /// Errors: mismatch (other limits are promised already), unsupported (no range at all).
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
