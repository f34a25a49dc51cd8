// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QemuMachine: QEMU's device models behind QEMU's VT-d, in a process without a guest. qtest.hpp
// talks to QEMU, pci_bus.hpp sets up its bus.
#pragma once

#include "moat/iommu/vtd/domain.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include "machine/machine.hpp"
#include "machine/qemu/pci_bus.hpp"
#include "machine/qemu/qtest.hpp"
#include "platform/memory_file.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::machine::qemu {

struct QemuOptions {
    std::string program = "qemu-system-x86_64";
    /// Arguments of -device: "edu,addr=4", "nvme,drive=disk0,serial=x,addr=5".
    std::vector<std::string> devices = {};
    /// Raw, zeroed disks that devices know as disk0, disk1, ...
    std::vector<ByteCount> disks = {};
    /// Further arguments, unchanged: "-netdev", ...
    std::vector<std::string> arguments = {};
    ByteCount ram{std::uint64_t{512} << 20};
    /// The longest wait for one answer, after which QEMU is ended.
    std::chrono::milliseconds patience{10'000};
    iommu::vtd::UnitOptions unit = {.coherence = iommu::vtd::Coherence::known};
    /// Gets QEMU's standard error if it does not start.
    std::string* words = nullptr;
};

/// The IOMMU's registers, at their address in q35. Its capabilities place some behind the first
/// page.
class UnitRegisters final : public MemoryRegisters {
  public:
    explicit UnitRegisters(Qtest& qtest)
        : MemoryRegisters(qtest, PhysicalAddress(0xfed90000), ByteCount(0x10000)) {}

    /// QEMU's IOMMU completes commands before it answers: a second look suffices, unless the device
    /// is not QEMU's.
    bool relax(unsigned attempt) {
        qtest_.drain();
        return qtest_.health() && attempt < 16;
    }
};

static_assert(iommu::vtd::UnitRegisters<UnitRegisters>);

/// Used by one thread at a time, which outlives it.
class QemuMachine final : public Machine {
  public:
    using Pool = TablePool<RealSync>;
    using Unit = iommu::vtd::Unit<UnitRegisters, Pool, RealSync>;
    using UnitDomain = iommu::vtd::Domain<Unit, 4>;
    static_assert(iommu::DeferringDomain<UnitDomain>);

    /// Errors: not_found (QEMU is not installed), no_memory, io (it ended, hangs or sends invalid
    /// answers), and those of the bus and the IOMMU.
    static Result<std::unique_ptr<QemuMachine>> start(const QemuOptions& options);

    ~QemuMachine() override;

    [[nodiscard]] std::string_view name() const override { return "qemu"; }

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

    void do_meanwhile(FunctionRef<void()> work) override { qtest_.do_meanwhile(work); }

    void finish_meanwhile() override { qtest_.finish_meanwhile(); }

    [[nodiscard]] Result<void> health() const override { return qtest_.health(); }

    [[nodiscard]] std::span<std::byte> disk(std::size_t index) const {
        return disks_[index].bytes();
    }

    /// All of its memory, by physical address.
    [[nodiscard]] std::span<std::byte> ram() const { return ram_.bytes(); }

    [[nodiscard]] Unit& unit() { return *unit_; }

    [[nodiscard]] const Qtest& qtest() const { return qtest_; }

  private:
    friend class QemuFunction;

    /// A function's domain, and the memory that receives its interrupt messages.
    struct Attachment {
        UnitDomain* domain;
        std::optional<SharedMemory> interrupts;
    };

    QemuMachine(platform::MemoryFile ram, std::vector<platform::MemoryFile> disks,
                platform::ChildProcess process, platform::StreamSocket socket);

    /// The address of the function's messages: in the upper half of its domain.
    static Iova interrupts_of(const UnitDomain& domain, Bdf function);

    /// Makes the function's messages arrive in memory. Return: where the function writes them, and
    /// where the CPU reads them. Errors: refused (not attached), no_memory, io.
    Result<std::pair<Iova, std::span<std::byte>>> map_interrupts(Bdf function);

    Result<void> set_up(const iommu::vtd::UnitOptions& options);
    void release_shared(PhysicalAddress physical, ByteCount size) override;

    platform::MemoryFile ram_;
    std::vector<platform::MemoryFile> disks_;
    Qtest qtest_;
    UnitRegisters unit_registers_;
    std::vector<TableHeader> table_headers_;
    Pool tables_;
    std::unique_ptr<Unit> unit_;
    std::vector<PciFunction> functions_;
    /// Start and length of each free range, in order; no two are adjacent.
    std::map<std::uint64_t, std::uint64_t> free_;
    std::map<Bdf, Attachment> attached_;
    /// Devices may still write here, because an invalidation failed.
    std::vector<SharedMemory> kept_;
    std::set<Bdf> opened_;
};

} // namespace moat::machine::qemu
