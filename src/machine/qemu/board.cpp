// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/qemu/board.hpp"

#include <array>

namespace moat::machine::qemu {
namespace {

/// cli; hlt; jump back
constexpr std::array<std::uint8_t, 4> x86_halt = {0xfa, 0xf4, 0xeb, 0xfd};

constexpr PhysicalAddress q35_ecam(0xe0000000);

/// Intel 3 Series, 5.1.15: PCIEXBAR, of 256 buses.
void enable_q35_ecam(Qtest& qtest) {
    constexpr unsigned pciexbar = 0x60;
    const auto host_bridge = [&](unsigned offset, std::uint32_t value) {
        qtest.write(Space::ports, 0xcf8, Width::bits32, 0x80000000 | offset);
        qtest.write(Space::ports, 0xcfc, Width::bits32, value);
    };
    host_bridge(pciexbar + 4, 0);
    host_bridge(pciexbar, static_cast<std::uint32_t>(q35_ecam.value()) | 1);
}

constexpr std::array<std::string_view, 4> intel_arguments = {
    "-machine", "q35,memory-backend=ram,kernel-irqchip=off,vmport=off,pit=off", "-device",
    "intel-iommu,aw-bits=48,device-iotlb=on"};

constexpr Board q35 = {.program = "qemu-system-x86_64",
                       .arguments = std::span(intel_arguments).first<2>(),
                       .firmware = x86_halt,
                       .reset = 0xfff0,
                       .enable_ecam = enable_q35_ecam,
                       .pci = {q35_ecam, 32, {PhysicalAddress(0xc0000000), ByteCount(0x20000000)}},
                       .ram = PhysicalAddress(0),
                       .most_ram =
                           ByteCount(std::uint64_t{2} << 30), // what q35 keeps below 4G at least
                       .iommu = {}};

constexpr Board intel = [] {
    Board board = q35;
    board.arguments = intel_arguments;
    // Its capabilities place some registers behind the first page.
    board.iommu = {PhysicalAddress(0xfed90000), ByteCount(0x10000)};
    return board;
}();

constexpr Board none = [] {
    Board board = q35;
    board.records = FaultRecords::none;
    return board;
}();

/// It translates always, and records nothing (7.2).
constexpr std::array<std::string_view, 4> older_amd_arguments = {
    "-machine", "q35,memory-backend=ram,kernel-irqchip=off,vmport=off,pit=off", "-device",
    "amd-iommu"};

/// Without dma-remap, devices reach all of memory (11.1).
constexpr std::array<std::string_view, 4> amd_arguments = {
    "-machine", "q35,memory-backend=ram,kernel-irqchip=off,vmport=off,pit=off", "-device",
    "amd-iommu,dma-remap=on"};

constexpr Board older_amd = [] {
    Board board = q35;
    board.arguments = older_amd_arguments;
    board.iommu = {PhysicalAddress(0xfed80000), ByteCount(0x4000)};
    board.records = FaultRecords::none;
    return board;
}();

constexpr Board amd = [] {
    Board board = older_amd;
    board.arguments = amd_arguments;
    board.records = FaultRecords::without_address;
    board.older = &older_amd;
    board.needs = "dma-remap";
    return board;
}();

constexpr std::array<std::string_view, 4> virtio_arguments = {
    "-machine", "q35,memory-backend=ram,kernel-irqchip=off,vmport=off,pit=off", "-device",
    "virtio-iommu-pci"};

constexpr Board virtio = [] {
    Board board = q35;
    board.arguments = virtio_arguments;
    return board;
}();

/// wfi; branch back
constexpr std::array<std::uint8_t, 8> arm_halt = {0x7f, 0x20, 0x03, 0xd5, 0xff, 0xff, 0xff, 0x17};

constexpr std::array<std::string_view, 4> smmuv3_arguments = {
    "-machine", "virt,memory-backend=ram,iommu=smmuv3,highmem=off", "-cpu", "cortex-a57"};

/// Without high memory, ECAM and the window of BARs are below 4G.
constexpr Board smmuv3 = {
    .program = "qemu-system-aarch64",
    .arguments = smmuv3_arguments,
    .firmware = arm_halt,
    .reset = 0,
    .enable_ecam = [](Qtest&) {},
    .pci = {PhysicalAddress(0x3f000000), 16, {PhysicalAddress(0x10000000), ByteCount(0x2e000000)}},
    .ram = PhysicalAddress(0x40000000),
    .most_ram = ByteCount(std::uint64_t{2} << 30),
    .iommu = {PhysicalAddress(0x09050000), ByteCount(0x20000)}};

} // namespace

const Board& board_of(IommuModel iommu) {
    switch (iommu) {
    case IommuModel::amd:
        return amd;
    case IommuModel::smmuv3:
        return smmuv3;
    case IommuModel::virtio:
        return virtio;
    case IommuModel::none:
        return none;
    default:
        return intel;
    }
}

} // namespace moat::machine::qemu
