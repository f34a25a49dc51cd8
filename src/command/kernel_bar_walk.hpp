// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// KernelBarWalk: the reproducer of the page-walk race on this host's kernel: touches a device's
// large BAR, maps it for DMA and unmaps it while readers read numa_maps. stress.cpp runs it, after
// it has checked kernel_vulnerability.hpp.
#pragma once

#include "bar_work.hpp"
#include "machine/vfio_host/vfio_machine.hpp"

#include <cstddef>
#include <memory>
#include <span>

namespace moat::tools {

class KernelBarWalk final : public BarWork {
  public:
    /// Opens the named function, or the bound one with the largest BAR whose reads have no effect
    /// (prefetchable). Errors: VfioMachine's; not_found (no such BAR).
    [[nodiscard]] static Result<std::unique_ptr<KernelBarWalk>>
    open(std::optional<machine::Bdf> device);

    ~KernelBarWalk() override;

    [[nodiscard]] machine::Bdf device() const { return device_; }

    [[nodiscard]] ByteCount bar() const { return ByteCount(bar_.size()); }

    Result<void> round(FunctionRef<void()> step) override;
    Result<void> report() override;

    [[nodiscard]] std::optional<std::uint64_t> leaves() const override { return std::nullopt; }

    /// Leaves of 1 GiB of any process, as the kernel counts them.
    [[nodiscard]] std::optional<std::uint64_t> lost_leaves() const override;

    [[nodiscard]] std::uint64_t retries() const override { return domain_->map_retries(); }

    [[nodiscard]] std::string errno_name(const Error& error) const override;

  private:
    KernelBarWalk() = default;

    Result<void> take_bar(std::optional<machine::Bdf> wanted);
    Result<void> choose_iova();
    void touch() const;

    std::unique_ptr<machine::vfio_host::VfioMachine> machine_;
    std::unique_ptr<machine::vfio_host::KernelDomain> domain_;
    std::unique_ptr<machine::Function> function_;
    machine::Bdf device_;
    std::span<std::byte> bar_;
    Iova iova_;
    std::optional<std::uint64_t> splits_before_;
};

} // namespace moat::tools
