// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A machine in this process: device models behind a software IOMMU. Deterministic: it has no
// thread, and its clock advances only during waits.
#pragma once

#include "machine/machine.hpp"
#include "machine/soft/device_model.hpp"

#include <cstdint>
#include <memory>

namespace moat::machine::soft {

/// Whether other processes can map what is allocated.
enum class Backing : std::uint8_t { anonymous, files };

/// Whether a function caches translations itself, as PCI Express ATS allows it. A model of such a
/// cache: pages stay in it until the domain invalidates them.
enum class Ats : std::uint8_t { absent, enabled };

/// A place in a file of memory.
struct FilePlace {
    int descriptor = -1;
    std::uint64_t offset = 0;
};

/// Its IOMMU is private to src/machine/soft. Used by one thread at a time.
class SoftMachine final : public Machine {
  public:
    explicit SoftMachine(Backing backing = Backing::anonymous);
    ~SoftMachine() override;

    /// Adds a function to the bus, before anything is opened. The caller owns the model, which
    /// outlives the machine. Errors: overlap (the address is taken), busy (something was opened).
    [[nodiscard]] Result<void> add(Bdf address, DeviceModel& model, Ats ats = Ats::absent);

    /// Domains no longer invalidate what functions cache. For tests.
    void leave_device_tlbs();

    /// The bus as the function at `address`, which was added, sees it: for a model that acts
    /// outside of its steps.
    [[nodiscard]] BusMaster& bus(Bdf address);

    /// The file of allocated memory, which keeps it; of a machine with Backing::files.
    [[nodiscard]] FilePlace file_of(PhysicalAddress physical) const;

    [[nodiscard]] std::string_view name() const override { return "soft"; }

    [[nodiscard]] Result<std::unique_ptr<Function>> open(Bdf address) override;
    [[nodiscard]] Result<std::unique_ptr<Domain>> create_domain() override;
    [[nodiscard]] Result<void> attach(Bdf function, Domain& domain) override;
    [[nodiscard]] Result<void> detach(Bdf function) override;
    [[nodiscard]] Result<SharedMemory> allocate(ByteCount size,
                                                unsigned alignment_lg2 = 12) override;
    [[nodiscard]] Result<std::uint64_t>
    take_faults(FunctionRef<void(const fault::Record&)> each) override;
    [[nodiscard]] Wait wait_until(FunctionRef<bool()> happened,
                                  std::chrono::nanoseconds longest) override;
    [[nodiscard]] std::chrono::nanoseconds now() override;

  private:
    void release_shared(PhysicalAddress physical, ByteCount size) override;

    class Parts;
    std::unique_ptr<Parts> parts_;
};

} // namespace moat::machine::soft
