// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QemuMachine: QEMU's device models behind one of QEMU's IOMMUs, in a process without a guest.
// qtest.hpp talks to QEMU, board.hpp has the addresses, pci_bus.hpp sets up the bus, and iommu.hpp
// is the IOMMU.
#pragma once

#include "machine/machine.hpp"
#include "machine/qemu/board.hpp"
#include "machine/qemu/driven_iommu.hpp"
#include "machine/qemu/iommu.hpp"
#include "machine/qemu/pci_bus.hpp"
#include "machine/qemu/qtest.hpp"
#include "machine/qemu/wire.hpp"
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
    IommuModel iommu = IommuModel::intel;
    /// Empty: the board's, such as qemu-system-x86_64.
    std::string program = {};
    /// Arguments of -device: "edu,addr=4", "nvme,drive=disk0,serial=x,addr=5".
    std::vector<std::string> devices = {};
    /// Raw, zeroed disks that devices know as disk0, disk1, ...
    std::vector<ByteCount> disks = {};
    /// Loops for network devices, which know them as netdev=wire0, wire1, ...
    unsigned wires = 0;
    /// Further arguments, unchanged.
    std::vector<std::string> arguments = {};
    ByteCount ram{std::uint64_t{512} << 20};
    /// The longest wait for one answer, after which QEMU is ended.
    std::chrono::milliseconds patience{10'000};
    iommu::vtd::UnitOptions vtd = {.coherence = iommu::Coherence::known};
    /// QEMU's caches leaves only, and its capability has IotlbSup.
    iommu::amd::UnitOptions amd = {.caches_absent = false, .serves_device_tlbs = true};
    iommu::smmuv3::UnitOptions smmuv3 = {.stream_bits = 12}; ///< virt has 16 buses
    /// Gets QEMU's standard error if it does not start.
    std::string* words = nullptr;
};

/// Used by one thread at a time, which outlives it.
class QemuMachine final : public Machine {
  public:
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

    /// All of its memory, from the physical address `ram_start` on.
    [[nodiscard]] std::span<std::byte> ram() const { return ram_.bytes(); }

    [[nodiscard]] PhysicalAddress ram_start() const { return board_.ram; }

    [[nodiscard]] IommuModel iommu_model() const { return model_; }

    [[nodiscard]] FaultRecords fault_records() const { return board_.records; }

    [[nodiscard]] QemuIommu& iommu() { return *iommu_; }

    [[nodiscard]] const Qtest& qtest() const { return qtest_; }

  private:
    friend class QemuFunction;

    /// A function's domain, and where it writes its interrupt messages, with the memory there.
    struct Attachment {
        QemuDomain* domain;
        std::optional<std::pair<Iova, SharedMemory>> interrupts;
    };

    QemuMachine(IommuModel model, const Board& board, platform::MemoryFile ram,
                std::vector<platform::MemoryFile> disks, std::vector<std::unique_ptr<Wire>> wires,
                platform::ChildProcess process, platform::StreamSocket socket);

    static Result<std::unique_ptr<QemuMachine>> start_on(const Board& board,
                                                         const QemuOptions& options);

    /// Makes the function's messages arrive in memory. Return: where the function writes them, and
    /// where the CPU reads them. Errors: refused (not attached), no_memory, io.
    Result<std::pair<Iova, std::span<std::byte>>> map_interrupts(Bdf function);

    /// Null: there is no such function.
    [[nodiscard]] const PciFunction* find(Bdf address) const;

    Result<void> set_up(const QemuOptions& options);
    Result<std::unique_ptr<QemuIommu>> open_iommu(const QemuOptions& options);
    void release_shared(PhysicalAddress physical, ByteCount size) override;

    const IommuModel model_;
    const Board& board_;
    platform::MemoryFile ram_;
    std::vector<platform::MemoryFile> disks_;
    std::vector<std::unique_ptr<Wire>> wires_;
    Qtest qtest_;
    std::vector<TableHeader> table_headers_;
    Tables tables_;
    std::unique_ptr<QemuIommu> iommu_;
    std::vector<PciFunction> functions_;
    /// Offset and length of each free range of memory, in order; no two are adjacent.
    std::map<std::uint64_t, std::uint64_t> free_;
    std::map<Bdf, Attachment> attached_;
    /// Devices may still write here, because an invalidation failed.
    std::vector<SharedMemory> kept_;
    std::set<Bdf> opened_;
};

} // namespace moat::machine::qemu
