// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain whose tables Linux keeps, by VFIO type1 (type1.cpp) or iommufd (iommufd.cpp);
// capabilities describe the differences. VfioMachine creates it; dma::Space maps into it.
#pragma once

#include "machine/domain.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "platform/file_descriptor.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::machine::vfio_host {

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

/// Keeps a function in its domain, as does the open file, and opens the device's file. Errors: busy
/// (another process has it open), limit (of open files), io.
using Attachment = std::function<Result<platform::FileDescriptor>()>;

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
    [[nodiscard]] virtual Result<std::optional<std::uint32_t>> mappings_left() const {
        return std::nullopt;
    }

    /// `root` is sysfs. Errors: unsupported (no IOMMU, or insufficient isolation), refused (no
    /// right), busy, not_found (no file: not bound to vfio-pci), mismatch, io.
    [[nodiscard]] virtual Result<Attachment> attach(const HostFunction& function,
                                                    std::string_view root) = 0;

    /// Adds the part below 2^57 of a range that the kernel reports, `last` inclusive: IOMMUs with
    /// five levels and the IOVA allocator end there. AMD's driver reports all 2^64.
    static void add_reachable(std::vector<IovaRange>& ranges, std::uint64_t first,
                              std::uint64_t last);

    /// How often mapping a BAR was retried, because a process read numa_maps at the same time.
    /// Retries take time and use smaller pieces (mappings_left).
    [[nodiscard]] std::uint64_t map_retries() const {
        return map_retries_.load(std::memory_order_relaxed);
    }

  protected:
    /// Sets what devices reach, in ascending order; gaps are reserved. Errors: mismatch (other
    /// limits were set before), unsupported (no range at all).
    Result<void> set_limits(const std::vector<IovaRange>& reachable, std::uint64_t leaf_sizes);

    /// Why the kernel did not map, from errno.
    [[nodiscard]] static std::unexpected<Error> fail_map(Iova start, ByteCount size);

    /// Whether [start, start + size) and `memory` are whole pages inside the limits.
    [[nodiscard]] Result<void> check(Iova start, ByteCount size, PhysicalAddress memory) const;

    KernelCapabilities capabilities_;
    std::atomic<std::uint64_t> map_retries_{0};

  private:
    iommu::DomainLimits limits_;
    std::vector<IovaRange> reserved_;
};

static_assert(iommu::DeferringDomain<KernelDomain>);

/// Errors: not_found (with the sentence `missing`), refused, busy, io.
[[nodiscard]] Result<platform::FileDescriptor> open_file(const std::string& path,
                                                         const char* missing);

/// Whether the kernel has the backend: /dev/vfio/vfio with type 1; /dev/iommu and device files.
/// Errors: not_found, refused, unsupported.
[[nodiscard]] Result<void> probe_type1();
[[nodiscard]] Result<void> probe_iommufd();

/// Errors: the probe's, io.
[[nodiscard]] Result<std::unique_ptr<KernelDomain>> create_type1_domain();
[[nodiscard]] Result<std::unique_ptr<KernelDomain>> create_iommufd_domain();

} // namespace moat::machine::vfio_host
