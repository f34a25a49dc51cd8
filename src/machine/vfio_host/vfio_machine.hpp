// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VfioMachine: the devices that Linux has bound to vfio-pci (docs/design/vfio_host.md).
// pci_devices.hpp binds them; kernel_domain.hpp documents their domains.
#pragma once

#include "machine/machine.hpp"
#include "machine/vfio_host/host_faults.hpp"
#include "machine/vfio_host/kernel_domain.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "platform/memory_file.hpp"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace moat::machine::vfio_host {

class VfioFunction;

struct VfioOptions {
    /// Nothing: iommufd if the kernel and the bound functions support it, otherwise type1.
    std::optional<Backend> backend = {};
    /// Only sysfs; devices are opened in /dev.
    std::string sysfs_root{sysfs};
};

/// Used by one thread at a time. A function is attached before it is opened, and closed before it
/// is detached; otherwise `open` and `detach` return `refused`. Its functions are those bound to
/// vfio-pci when it was opened.
class VfioMachine final : public Machine {
  public:
    /// Errors: not_found and unsupported (no VFIO, or not the requested backend), refused (no right
    /// to its files, or to the kernel's log).
    static Result<std::unique_ptr<VfioMachine>> open(const VfioOptions& options = {});

    ~VfioMachine() override;

    [[nodiscard]] std::string_view name() const override { return "vfio"; }

    [[nodiscard]] Backend backend() const { return backend_; }

    /// Whether faults are also read from the kernel's tracepoint, if it exists and is accessible.
    /// The first fault shows whether the IOMMU's driver uses it.
    [[nodiscard]] bool follows_tracepoint() const { return faults_.follows_tracepoint(); }

    [[nodiscard]] Result<std::unique_ptr<Function>> open(Bdf address) override;

    [[nodiscard]] Result<std::unique_ptr<Domain>> create_domain() override {
        return create_kernel_domain();
    }

    /// The same, as a KernelDomain.
    [[nodiscard]] Result<std::unique_ptr<KernelDomain>> create_kernel_domain();

    /// Errors: Machine's; unsupported, refused, mismatch (KernelDomain's limits).
    [[nodiscard]] Result<void> attach(Bdf function, Domain& domain) override;
    [[nodiscard]] Result<void> detach(Bdf function) override;
    [[nodiscard]] Result<SharedMemory> allocate(ByteCount size,
                                                unsigned alignment_lg2 = 12) override;

    /// Faults of attached functions, from the tracepoint if the IOMMU's driver uses it, otherwise
    /// from the kernel's log. The count is the whole host's, because lost faults have no source.
    [[nodiscard]] Result<std::uint64_t>
    take_faults(FunctionRef<void(const fault::Record&)> each) override;

    /// Sleeps until an enabled interrupt arrives, at most a millisecond at a time.
    [[nodiscard]] Wait wait_until(FunctionRef<bool()> happened,
                                  std::chrono::nanoseconds longest) override;

    /// A memory BAR of an open function, mapped in this process and aligned to its largest possible
    /// leaf. A domain with `peer_to_peer` can map its address. It lives as long as the function;
    /// its mappings stay reachable for longer. Errors: not_found, unsupported (ports, or a BAR that
    /// VFIO does not map), io.
    [[nodiscard]] Result<std::span<std::byte>> bar_memory(Bdf function, unsigned index);

  private:
    VfioMachine(Backend backend, std::string sysfs_root, HostFaults faults)
        : backend_(backend), sysfs_root_(std::move(sysfs_root)), faults_(std::move(faults)) {}

    [[nodiscard]] const HostFunction* find(Bdf address) const;
    [[nodiscard]] VfioFunction* find_open(Bdf address) const;
    void release_shared(PhysicalAddress physical, ByteCount size) override;

    const Backend backend_;
    const std::string sysfs_root_;
    HostFaults faults_;
    std::vector<HostFunction> functions_;
    std::map<Bdf, Attachment> attached_;
    std::set<VfioFunction*> open_ones_;
    std::map<std::uint64_t, platform::Mapping> memory_;
};

} // namespace moat::machine::vfio_host
