// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VfioUserMachine: the device of a vfio-user server as a machine, behind moat's software IOMMU.
// Why one window without a descriptor: docs/design/vfio_user.md.
#pragma once

#include "machine/machine.hpp"
#include "machine/soft/soft_machine.hpp"
#include "machine/vfio_user/remote_device.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace moat::machine::vfio_user {

/// How the server reaches memory.
enum class Dma : std::uint8_t {
    message, ///< it asks for each access, which the IOMMU judges to the byte
    shared,  ///< it maps each page of a buffer; accesses past them are seen by nobody
};

struct ServerOptions {
    std::string socket;
    Dma dma = Dma::message;
    /// The longest wait for one answer, after which the connection is ended.
    Channel::Patience patience = Channel::usual_patience;
};

/// Used by one thread at a time.
class VfioUserMachine final : public Machine {
  public:
    /// What the server's device has as its address.
    static constexpr Bdf address = Bdf(0, 1, 0);

    /// Errors: RemoteDevice::connect's; refused (the server takes no window).
    static Result<std::unique_ptr<VfioUserMachine>> connect(const ServerOptions& options);

    [[nodiscard]] std::string_view name() const override { return "vfio-user"; }

    [[nodiscard]] Result<std::unique_ptr<Function>> open(Bdf function) override;
    [[nodiscard]] Result<std::unique_ptr<Domain>> create_domain() override;
    [[nodiscard]] Result<void> attach(Bdf function, Domain& domain) override;
    [[nodiscard]] Result<void> detach(Bdf function) override;
    [[nodiscard]] Result<SharedMemory> allocate(ByteCount size,
                                                unsigned alignment_lg2 = 12) override;
    [[nodiscard]] Result<std::uint64_t>
    take_faults(FunctionRef<void(const fault::Record&)> each) override;
    [[nodiscard]] Wait wait_until(FunctionRef<bool()> happened,
                                  std::chrono::nanoseconds longest) override;
    [[nodiscard]] Result<void> health() const override;

    [[nodiscard]] std::uint64_t round_trips() const { return remote_->round_trips(); }

  private:
    VfioUserMachine(std::unique_ptr<RemoteDevice> remote, Dma dma);

    const Dma dma_;
    std::unique_ptr<RemoteDevice> remote_;
    soft::SoftMachine soft_; ///< the memory, the domains and the IOMMU
};

} // namespace moat::machine::vfio_user
