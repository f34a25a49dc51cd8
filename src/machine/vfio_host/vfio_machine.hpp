// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What Linux has bound to vfio-pci, as a Machine: docs/design/vfio_host.md.
// Who binds is pci_devices.hpp; what a domain promises kernel_domain.hpp.
#pragma once

#include "machine/machine.hpp"
#include "machine/vfio_host/host_faults.hpp"
#include "machine/vfio_host/kernel_domain.hpp"
#include "machine/vfio_host/pci_devices.hpp"

#include <memory>
#include <optional>
#include <span>
#include <string>

namespace moat::machine::vfio_host {

struct VfioOptions {
    /// None: iommufd where the kernel and the bound functions offer it, else type1.
    std::optional<Backend> backend = {};
    /// Only sysfs; devices are opened in /dev.
    std::string sysfs_root{sysfs};
};

/// Used by one thread at a time. Here a function is attached before it is opened and closed before
/// it is detached: `open` and `detach` are `refused` otherwise.
class VfioMachine final : public Machine, private SharedMemory::Owner {
  public:
    /// Errors: not_found and unsupported (no VFIO, or not the backend that was asked for), refused
    /// (no right to its files, or to the kernel's log).
    static Result<std::unique_ptr<VfioMachine>> open(const VfioOptions& options = {});

    ~VfioMachine() override;

    [[nodiscard]] std::string_view name() const override { return "vfio"; }

    [[nodiscard]] Backend backend() const;

    /// Whether faults are followed by the kernel's tracepoint too, beside its log: where it has
    /// one and this process may. Whether the IOMMU's driver uses it shows with the first fault.
    [[nodiscard]] bool follows_tracepoint() const;

    /// Those that vfio-pci had when the machine was opened.
    [[nodiscard]] std::span<const FunctionInfo> functions() const override;

    [[nodiscard]] Result<std::unique_ptr<Function>> open(Bdf address) override;
    [[nodiscard]] Result<std::unique_ptr<Domain>> create_domain() override;

    /// The same, with what a kernel's domain tells beside.
    [[nodiscard]] Result<std::unique_ptr<KernelDomain>> create_kernel_domain();

    /// Errors: Machine's; unsupported, refused, mismatch (KernelDomain's limits).
    [[nodiscard]] Result<void> attach(Bdf function, Domain& domain) override;
    [[nodiscard]] Result<void> detach(Bdf function) override;
    [[nodiscard]] Result<SharedMemory> allocate(ByteCount size,
                                                unsigned alignment_lg2 = 12) override;

    /// By the tracepoint where the IOMMU's driver uses it, else by the kernel's log: what is about
    /// functions that are attached. The return counts the whole host's, because what was not said
    /// has no name.
    [[nodiscard]] Result<std::uint64_t>
    take_faults(FunctionRef<void(const fault::Record&)> each) override;

    /// Sleeps on the interrupts that are enabled, and looks once a millisecond in any case.
    [[nodiscard]] Wait wait_until(FunctionRef<bool()> happened,
                                  std::chrono::nanoseconds longest) override;
    [[nodiscard]] std::chrono::nanoseconds now() override;

    [[nodiscard]] Result<void> health() const override { return {}; }

    /// A memory BAR of a function that is open, where this process sees it: aligned to the largest
    /// leaf that it can have. Its address can be mapped in a domain that has `peer_to_peer`; it
    /// lives as long as the function, and what was mapped stays reachable for longer.
    /// Errors: not_found, unsupported (ports, or one that VFIO does not map), io.
    [[nodiscard]] Result<std::span<std::byte>> bar_memory(Bdf function, unsigned index);

  private:
    class Parts;

    explicit VfioMachine(std::unique_ptr<Parts> parts);
    void release_shared(PhysicalAddress physical, ByteCount size) override;

    std::unique_ptr<Parts> parts_;
};

} // namespace moat::machine::vfio_host
