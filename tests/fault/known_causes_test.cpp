// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every row of the table of known causes is the answer to a log of its own.
#include "moat/fault/decode.hpp"

#include "fault/known_cause.hpp"
#include "fault/requester.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>
#include <string_view>
#include <vector>

namespace moat::fault {
namespace {

struct Explained {
    std::string log;
    std::string_view cause;
};

/// The groups of a log with their context, as `moat explain` makes them.
struct ReadLog {
    explicit ReadLog(std::string_view log) {
        const auto add = [&](const LogEvent& event) {
            context.event(event);
            groups.add(event);
        };
        while (!log.empty()) {
            const std::size_t end = std::min(log.find('\n'), log.size());
            context.line(log.substr(0, end));
            decoder.line(log.substr(0, end), add);
            log.remove_prefix(std::min(end + 1, log.size()));
        }
        decoder.end(add);
    }

    Decoder decoder;
    LogGroups groups;
    LogContext context;
};

std::string intel(std::string_view time, std::string_view access, std::string_view device,
                  std::string_view address, std::string_view reason) {
    return "[" + std::string(time) + "] DMAR: [DMA " + std::string(access) +
           " NO_PASID] Request device [" + std::string(device) + "] fault addr " +
           std::string(address) + " [fault reason " + std::string(reason) + "] text\n";
}

std::string amd(std::string_view driver, std::string_view address, std::string_view flags) {
    return "[  100.000000] " + std::string(driver) +
           " 0000:0a:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0011 address=" +
           std::string(address) + " flags=" + std::string(flags) + "]\n";
}

std::string nvme_names() {
    return "[    2.000000] nvme 0000:01:00.0: platform quirk\n";
}

std::string interrupt(std::string_view reason) {
    return "[   50.000000] DMAR: [INTR-REMAP] Request device [04:00.0] fault index 0x1d [fault "
           "reason " +
           std::string(reason) + "] text\n";
}

std::string dma_map(std::string_view error) {
    return "qemu-system-x86_64: vfio_dma_map(0x560000001000, 0x380000000000, 0x200000000, "
           "0x7f0000000000) = " +
           std::string(error) + " (text)\n";
}

std::vector<Explained> explained_logs() {
    const std::string late_write = intel("  100.000000", "Write", "04:00.0", "0xf0001000", "0x05");
    const std::string late_read = intel("  100.000000", "Read", "04:00.0", "0xf0001000", "0x06");
    const std::string nvme_read =
        nvme_names() + intel("  100.000000", "Read", "01:00.0", "0xf0001000", "0x06");
    const std::string usb = "[    2.000000] xhci_hcd 0000:04:00.0: xHCI Host Controller\n";
    const std::string network = "[    2.000000] e1000e 0000:04:00.0 eth0: registered\n"
                                "[    2.000000] e1000e 0000:04:00.0: Interrupt mode\n";
    return {
        {"[    1.0] vfio-pci 0000:00:02.0: enabling device\n" +
             intel("  200.000000", "Read", "00:02.0", "0x7c000000", "0x06"),
         "igd-guest-stale-framebuffer"},
        {intel("    0.500000", "Read", "00:02.0", "0x7c000000", "0x06"), "igd-firmware-scanout"},
        {intel("  500.000000", "Write", "00:02.0", "0x7c000000", "0x05"), "igd-not-mapped"},
        {"(XEN) [VT-D]DMAR:[DMA Read] Request device [0000:00:02.0] fault addr 8e43c000, iommu reg "
         "= ffff82c00021d000\n"
         "(XEN) [VT-D]DMAR: reason 06 - PTE Read access is not set\n",
         "xen-igd"},
        {"[    1.000000] nouveau 0000:04:00.0: vgaarb\n" +
             intel("    4.000000", "Read", "04:00.0", "0xf0001000", "0x06"),
         "gpu-firmware-scanout"},
        {"[    2.000000] exynos-sysmmu 10000000.sysmmu: 11000000.fimd: [READ] PAGE FAULT occurred "
         "at 0x20001000\n",
         "display-firmware-scanout"},
        {"[   90.000000] amdgpu 0000:06:00.0: amdgpu: ring gfx timeout\n"
         "[  100.000000] AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:06:00.0 "
         "address=0x100a8f400]\n",
         "gpu-ats"},
        {amd("amdgpu", "0x80000000", "0x0000"), "gpu-not-mapped"},
        {"[  100.000000] AMD-Vi: Event logged [INVALID_DEVICE_REQUEST device=0000:00:00.0 "
         "pasid=0x00000 "
         "address=0xfffffffdf8000000 flags=0x0a00]\n",
         "amd-eoi-write"},
        {"[  100.000000] AMD-Vi: Event logged [ILLEGAL_DEV_TABLE_ENTRY device=0000:03:06.0 "
         "pasid=0x00000 address=0xfffffffdf8000000 flags=0x0a00]\n",
         "amd-interrupt-message"},
        {interrupt("0x22"), "intremap-entry-absent"},
        {interrupt("0x25"), "intremap-blocked-compatibility"},
        {interrupt("0x26"), "intremap-wrong-source"},
        {interrupt("0x21"), "intremap-other"},
        {intel("  100.000000", "Write", "04:00.0", "0xfee00000", "0x05"), "msi-as-dma"},
        {"[    1.000000] pci 0000:04:00.0: [1b4b:9172] type 00 class 0x010601\n" +
             intel("  100.000000", "Write", "04:00.1", "0xfff00000", "0x02"),
         "phantom-function"},
        {"00:00.0 Host bridge [0600]: Vendor Device [8086:1234]\n" + late_write,
         "requester-absent"},
        {"[    1.000000] vmd 0000:04:00.0: Bound to PCI domain 10000\n" + late_read, "vmd-disk"},
        {"[    0.100000] DMAR: Translation already enabled - trying to copy translation "
         "structures\n" +
             late_write,
         "kdump-copied-tables"},
        {"[   90.000000] PM: suspend exit\n"
         "[  100.000000] AMD-Vi: Event logged [ILLEGAL_DEV_TABLE_ENTRY device=0000:0a:00.0 "
         "pasid=0x00000 "
         "address=0x123450000 flags=0x0080]\n",
         "device-table-after-resume"},
        {"[   90.000000] PM: suspend exit\n" + late_write, "fault-after-resume"},
        {"[  100.000000] vfio-pci 0000:06:00.0: Device is ineligible for IOMMU domain attach due "
         "to platform RMRR "
         "requirement.  Contact your platform vendor.\n",
         "rmrr-refused"},
        {intel("    4.000000", "Write", "04:00.0", "0xf0001000", "0x02"), "firmware-still-active"},
        {"[    3.000000] ehci-pci 0000:04:00.0: EHCI Host Controller\n" +
             intel("   20.000000", "Write", "04:00.0", "0x7d000000", "0x05"),
         "legacy-usb"},
        {intel("    1.000000", "Write", "04:00.0", "0xf0001000", "0x05"), "scanned-at-boot"},
        {intel("  100.000000", "Write", "04:00.0", "0xffff888100001000", "0x05"), "cpu-address"},
        {nvme_names() + intel("  100.000000", "Read", "01:00.0", "0x0", "0x06"),
         "disk-address-zero"},
        {intel("  100.000000", "Write", "04:00.0", "0x0", "0x05"), "address-zero"},
        {nvme_names() + "[   50.000000] systemd: Starting fstrim.service\n" +
             intel("  100.000000", "Read", "01:00.0", "0xf0001000", "0x06"),
         "nvme-discard-overread"},
        {"[   90.000000] nvme 0000:21:00.0: quirk\n"
         "[  100.000000] DMAR: VT-d detected Invalidation Time-out Error: SID 2100\n"
         "[  100.000000] DMAR: QI HEAD: Device-TLB Invalidation qw0 = 0x2100210000000003, qw1 = "
         "0x7ffffffffffff001\n",
         "nvme-reset-ats"},
        {nvme_read, "disk-write-refused"},
        {nvme_names() + intel("  100.000000", "Write", "01:00.0", "0xf0001000", "0x05"),
         "disk-read-refused"},
        {amd("nvme", "0x80000000", "0x0000"), "disk-access-refused"},
        {usb + "[   90.000000] xhci_hcd 0000:04:00.0: HC died; cleaning up\n" + late_write,
         "xhci-after-death"},
        {usb + late_read, "xhci-ring-overfetch"},
        {usb + late_write, "usb-not-mapped"},
        {"[   90.000000] pcieport 0000:00:1c.0: pciehp: Slot(3): Link Down\n"
         "[  100.000000] DMAR: VT-d detected Invalidation Time-out Error: SID 400\n"
         "[  100.000000] DMAR: QI HEAD: Device-TLB Invalidation qw0 = 0x0400040000000003, qw1 = "
         "0x7ffffffffffff001\n",
         "device-gone-ats"},
        {"[  100.000000] AMD-Vi: Completion-Wait loop timed out\n", "amd-completion-wait"},
        {"[  100.000000] DMAR: VT-d detected Invalidation Time-out Error: SID 400\n"
         "[  100.000000] DMAR: QI HEAD: Device-TLB Invalidation qw0 = 0x0400040000000003, qw1 = "
         "0x7ffffffffffff001\n",
         "device-iotlb-timeout"},
        {intel("  100.000000", "Read", "04:00.0", "0x5000", "0x51"), "pasid-directory-empty"},
        {intel("  100.000000", "Read", "04:00.0", "0xf0001000", "0x0c"), "reserved-bits"},
        {"[  100.000000] DMAR: ERROR: DMA PTE for vPFN 0x12345 already set (to 12345003 not "
         "54321003)\n",
         "pte-already-set"},
        {"[  100.000000] DMAR: intel_iommu_map: iommu width (39) is not sufficient for the mapped "
         "address "
         "(8000001000)\n",
         "width-39"},
        {"[  100.000000] AMD-Vi: Event logged [PAGE_TAB_HARDWARE_ERROR device=0000:06:00.0 "
         "domain=0x0003 "
         "address=0x123450000 flags=0x0070]\n",
         "unit-hardware-error"},
        {"[  100.000000] AMD-Vi: Event logged [ILLEGAL_COMMAND_ERROR address=0x100200300]\n",
         "illegal-command"},
        {"[  100.000000] AMD-Vi: Event logged [RMP_PAGE_FAULT device=0000:06:00.0 vmg_tag=0x0001, "
         "gpa=0x12345000, "
         "flags_rmp=0x0001, flags=0x0020]\n",
         "rmp"},
        {"[  100.000000] arm-smmu 15000000.iommu: Unexpected global fault, this could be serious\n"
         "[  100.000000] arm-smmu 15000000.iommu: GFSR 0x00000002, GFSYNR0 0x00000002, GFSYNR1 "
         "0x00000077, "
         "GFSYNR2 0x00000000\n",
         "unidentified-stream"},
        {"[  100.000000] arm-smmu 15000000.iommu: Unexpected global fault, this could be serious\n"
         "[  100.000000] arm-smmu 15000000.iommu: GFSR 0x00000004, GFSYNR0 0x00000006, GFSYNR1 "
         "0x00000077, GFSYNR2 0x00000000\n",
         "stream-match-conflict"},
        {"[  100.000000] arm-smmu-v3 2b400000.iommu: event: C_BAD_STREAMID client: (unassigned "
         "sid) sid: 0x208 "
         "ssid: 0x0 iova: 0x0 ipa: 0x0\n",
         "stream-table"},
        {"[  100.000000] vfio_pin_pages_remote: RLIMIT_MEMLOCK (65536) exceeded\n", "memlock"},
        {dma_map("-12"), "map-no-memory"},
        {dma_map("-28"), "map-no-entries"},
        {dma_map("-17"), "map-exists"},
        {dma_map("-14"), "map-bar-of-peer"},
        {dma_map("-14") + "qemu: hardware error: vfio: DMA mapping failed, unable to continue\n",
         "map-memory-not-pinned"},
        {dma_map("-22"), "map-outside-aperture"},
        {dma_map("-5"), "map-failed"},
        {"[  100.000000] vfio-pci 0000:06:00.0: BAR 1: can't reserve [mem 0xd0000000-0xdfffffff "
         "64bit pref]\n",
         "bar-held-by-boot-framebuffer"},
        {"qemu-system-x86_64: -device vfio-pci,host=06:00.0: vfio 0000:06:00.0: group 15 is not "
         "viable\n",
         "group-not-viable"},
        {"qemu-system-x86_64: vfio 0000:82:11.1: device is already attached\n", "device-refused"},
        {"[  100.000000] vfio-pci 0000:06:00.0: Invalid PCI ROM header signature: expecting "
         "0xaa55, got 0xffff\n",
         "rom-header"},
        {"[  100.000000] vfio_iommu_type1_attach_group: No interrupt remapping support.  Use the "
         "module param "
         "\"allow_unsafe_interrupts\" to enable VFIO IOMMU support on this platform\n",
         "no-interrupt-remapping"},
        {"[  100.000000] nvme 0000:06:00.0: swiotlb buffer is full (sz: 327680 bytes), total 32768 "
         "(slots), used 32 "
         "(slots)\n",
         "swiotlb-full"},
        {"[  100.000000] DMA-API: e1000e 0000:06:00.0: cacheline tracking EEXIST, overlapping "
         "mappings aren't "
         "supported\n",
         "dma-debug-overlap"},
        {"[  100.000000] e1000e 0000:06:00.0: DMA-API: device driver frees DMA memory with wrong "
         "function [device "
         "address=0x00000000fff00000] [size=66 bytes] [mapped as single] [unmapped as page]\n",
         "dma-debug-wrong-free"},
        {"[  100.000000] e1000e 0000:06:00.0: DMA-API: exceeded 7 overlapping mappings of "
         "cacheline "
         "0x0000000000123456\n",
         "dma-debug-overlap"},
        {"[  100.000000] e1000e 0000:06:00.0: DMA-API: device driver failed to check map "
         "error[device "
         "address=0x00000000fff00000] [size=66 bytes] [mapped as single]\n",
         "dma-debug-other"},
        {"[  100.000000] e1000e 0000:06:00.0: DMA-API: device driver has pending DMA allocations "
         "while released from device [count=5]\n",
         "dma-debug-leak"},
        {"[  100.000000] kernel BUG at drivers/iommu/exynos-iommu.c:447!\n", "iommu-driver-bug"},
        {"[  100.000000] mpt3sas 0000:01:00.0: overflow 0x00000001ffe00000+4096 of DMA mask "
         "ffffffff bus limit 0\n",
         "dma-mask"},
        {"[  100.000000] iommu: Detected page leak!\n", "page-freed-while-mapped"},
        {"[  100.000000] EEH: Frozen PE#2 on PHB#1 detected\n", "eeh-frozen"},
        {"[    1.000000] pci 0000:05:00.0: BAR 0 [mem 0xf0000000-0xf0ffffff 64bit pref]\n" +
             late_read,
         "peer-to-peer"},
        {"[   10.000000] gasket: loading out-of-tree module taints kernel.\n" + late_read,
         "physical-address"},
        {"[   90.000000] pcieport 0000:00:1c.0: pciehp: Slot(3): Link Down\n" + late_read,
         "device-gone"},
        {"[   90.000000] foo 0000:04:00.0: timeout, reset controller\n" + late_read, "after-reset"},
        {network + late_write, "network-overrun"},
        {network + late_read, "network-not-mapped"},
        {"[   10.000000] vfio-pci 0000:04:00.0: enabling device\n" + late_read, "guest-assigned"},
        {"qemu-system-x86_64: vtd_iommu_translate: detected translation failure (dev=05:00:00, "
         "iova=0x12345000)\n",
         "emulated-device"},
        {amd("aa", "0xfff10000", "0x0050"), "wrong-direction"},
        {intel("  100.000000", "Write", "04:00.0", "0xf0001000", "0x02"), "not-attached"},
        {intel("  100.000000", "Write", "04:00.0", "0x8000000000", "0x04"), "address-too-wide"},
        {"[  100.000000] AMD-Vi: Event logged [INVALID_DEVICE_REQUEST device=0000:06:00.0 "
         "pasid=0x00000 "
         "address=0x12345000 flags=0x0200]\n",
         "bad-request"},
        {"[  100.000000] arm-smmu-v3 2b400000.iommu: EVTQ overflow detected -- events lost\n",
         "events-lost"},
        {intel("  100.000000", "Write", "04:00.0", "0xf0001000", "0x05") +
             intel("  100.000000", "Write", "04:00.0", "0xf0002000", "0x05") +
             intel("  100.000000", "Write", "04:00.0", "0xf0003000", "0x05"),
         "ran-past-the-end"},
        {late_write, "write-not-mapped"},
        {late_read, "not-mapped"},
        {"[  100.000000] AMD-Vi: Event logged [UNKNOWN event[0]=0x1, event[1]=0x2, event[2]=0x3, "
         "event[3]=0x4\n",
         "unit-error"},
    };
}

std::vector<KnownCause> rows() {
    std::vector<KnownCause> all;
    for (const std::span<const KnownCause> part : known_causes())
        all.insert(all.end(), part.begin(), part.end());
    return all;
}

TEST(KnownCauses, each_log_has_its_cause) {
    for (const Explained& each : explained_logs()) {
        const ReadLog log(each.log);
        EXPECT_EQ(log.groups.all().size(), 1U) << each.log;
        if (log.groups.all().empty())
            continue;
        EXPECT_EQ(likeliest_cause(log.groups.all().front(), log.context).id, each.cause)
            << each.log;
    }
}

TEST(KnownCauses, each_row_has_a_log) {
    const std::vector<Explained> logs = explained_logs();
    for (const KnownCause& cause : rows())
        EXPECT_NE(std::ranges::find(logs, cause.id, &Explained::cause), logs.end()) << cause.id;
}

TEST(KnownCauses, each_row_has_words_and_a_source) {
    std::vector<std::string_view> ids;
    for (const KnownCause& cause : rows()) {
        EXPECT_FALSE(cause.cause.empty() || cause.next.empty() || cause.source.empty()) << cause.id;
        EXPECT_EQ(std::ranges::find(ids, cause.id), ids.end()) << cause.id;
        ids.push_back(cause.id);
    }
}

TEST(Groups, lines_of_one_device_and_cause_are_one_group) {
    std::string text;
    for (unsigned i = 0; i < 300; ++i)
        text += intel(std::to_string(100 + i / 10) + "." + std::to_string(i % 10) + "00000",
                      "Write", i % 2 == 0 ? "04:00.0" : "04:00.0",
                      "0x" + std::string(i % 2 == 0 ? "1000" : "2000"), "0x05");
    const ReadLog log(text);
    ASSERT_EQ(log.groups.all().size(), 1U);
    const LogGroup& group = log.groups.all().front();
    EXPECT_EQ(group.count, 300U);
    EXPECT_EQ(group.begin_ns, 100'000'000'000U);
    EXPECT_EQ(group.end_ns, 129'900'000'000U);
}

TEST(Groups, a_segment_of_zero_is_no_difference_and_a_unit_is_one) {
    LogEvent event;
    event.record.source = Source::pci(4, 0, 0);
    LogGroups groups;
    groups.add(event);
    event.record.source = Source::pci(4, 0, 0, std::uint16_t{0});
    groups.add(event);
    EXPECT_EQ(groups.all().size(), 1U);
    event.record.source = Source::pci(4, 0, 0, std::uint16_t{1});
    groups.add(event);
    EXPECT_EQ(groups.all().size(), 2U);
    event.unit = "dmar1";
    groups.add(event);
    EXPECT_EQ(groups.all().size(), 3U);
}

TEST(Groups, suppressed_lines_are_no_faults) {
    LogEvent fault;
    fault.record.source = Source::pci(4, 0, 0);
    LogEvent suppressed;
    suppressed.kind = LogEvent::Kind::suppressed;
    suppressed.record.suppressed = 2474;
    LogGroups groups;
    groups.add(suppressed);
    EXPECT_TRUE(groups.all().empty());
    EXPECT_EQ(groups.suppressed(), 2474U);
    groups.add(fault);
    groups.add(suppressed);
    ASSERT_EQ(groups.all().size(), 1U);
    EXPECT_EQ(groups.all().front().count, 1U);
    EXPECT_EQ(groups.all().front().suppressed, 2474U);
    groups.add(fault);
    fault.record.source = Source::pci(5, 0, 0);
    groups.add(fault);
    groups.add(suppressed); // of which of the two?
    EXPECT_EQ(groups.all().front().suppressed, 2474U);
    EXPECT_EQ(groups.suppressed(), 2 * 2474U);
}

TEST(Groups, memory_is_bounded) {
    LogGroups groups;
    for (std::uint32_t i = 0; i < 2 * LogGroups::most; ++i) {
        LogEvent event;
        event.record.source = Source::stream(i);
        groups.add(event);
    }
    EXPECT_EQ(groups.all().size(), LogGroups::most);
    EXPECT_EQ(groups.left_out(), LogGroups::most);
    AddressSet addresses;
    for (std::uint64_t i = 0; i < 2 * AddressSet::most; ++i)
        addresses.add(i * 4096);
    EXPECT_EQ(addresses.kept().size(), AddressSet::most);
    EXPECT_EQ(addresses.left_out(), AddressSet::most);
}

TEST(Groups, addresses_at_one_distance_are_a_run) {
    AddressSet addresses;
    for (const std::uint64_t address : {0x9000, 0x1000, 0x2000, 0x3000, 0x1000, 0x9100, 0x20000})
        addresses.add(address);
    const std::vector<AddressRun> expected = {
        {.first = 0x1000, .last = 0x3000, .stride = 0x1000, .count = 3},
        {.first = 0x9000, .last = 0x9000, .stride = 0, .count = 1},
        {.first = 0x9100, .last = 0x9100, .stride = 0, .count = 1},
        {.first = 0x20000, .last = 0x20000, .stride = 0, .count = 1}};
    EXPECT_EQ(addresses.runs(), expected);
}

TEST(Requester, is_a_bridge_an_io_apic_a_vmd_or_a_stream) {
    struct Noted {
        std::string log;
        std::string_view note;
    };

    const std::string listing = "00:00.0 Host bridge [0600]: Vendor Device [8086:1234]\n"
                                "05:04.0 Audio device [0403]: Vendor Device [1102:0007]\n"
                                "\tKernel driver in use: snd_emu10k1x\n"
                                "01:00.0 Ethernet controller [0200]: Vendor Device [8086:10d3]\n"
                                "\tKernel driver in use: e1000e\n";
    const std::string stream = "arm-smmu-v3 a.auto: event: F_TRANSLATION client: (unassigned sid) "
                               "sid: 0x100 ssid: 0x0 iova: 0xfff01000 ipa: 0x0\n";
    for (const Noted& each : std::vector<Noted>{
             {listing + intel("  100.000000", "Read", "05:00.0", "0xf0001000", "0x06"),
              "a bridge, for the devices behind it: 0000:05:04.0 (snd_emu10k1x)"},
             {intel("  100.000000", "Read", "05:00.0", "0xf0001000", "0x06"), ""},
             {listing + intel("  100.000000", "Read", "05:04.0", "0xf0001000", "0x06"), ""},
             {"[   50.000000] DMAR: [INTR-REMAP] Request device [f0:1f.0] fault index 0x1d [fault "
              "reason 0x26] text\n",
              "an I/O APIC, as Intel's chipsets number it"},
             {"[    1.000000] vmd 0000:64:05.5: Bound to PCI domain 10000\n" +
                  intel("  100.000000", "Read", "64:05.5", "0xf0001000", "0x06"),
              "a VMD, for the devices of PCI domain 10000"},
             {stream, ""},
             {listing + stream,
              "0000:01:00.0 (e1000e), assuming that the number contains its requester ID"},
             {"arm-smmu-v3 a.auto: event: F_TRANSLATION client: 0002:09:00.0 sid: 0x20900 ssid: "
              "0x0 "
              "iova: 0x0 ipa: 0x0\n"
              "arm-smmu-v3 a.auto: event: F_TRANSLATION client: (unassigned sid) sid: 0x20108 "
              "ssid: 0x0 iova: 0xfff01000 ipa: 0x0\n",
              "0002:01:01.0, assuming that the number contains its requester ID"}}) {
        const ReadLog log(each.log);
        ASSERT_FALSE(log.groups.all().empty()) << each.log;
        EXPECT_EQ(requester_note(log.groups.all().back().first, log.context), each.note)
            << each.log;
    }
}

TEST(Context, names_a_domain_of_vmd_no_other_function) {
    const ReadLog log(
        "[  100.000000] nvme 10000:01:00.0: swiotlb buffer is full (sz: 4096 bytes)\n");
    ASSERT_EQ(log.groups.all().size(), 1U);
    EXPECT_EQ(log.groups.all().front().first.device, "10000:01:00.0");
    EXPECT_EQ(log.groups.all().front().first.record.source.kind(), Source::Kind::unknown);
}

TEST(Context, reads_listings_and_kernel_lines) {
    LogContext context;
    for (const std::string_view line :
         {"01:00.0 Non-Volatile memory controller [0108]: Vendor Device [144d:a80a] (rev 01)",
          "\tSubsystem: Vendor Device [144d:a801]", "\tKernel driver in use: nvme",
          "[    1.0] pci 0000:03:00.0: BAR 0 [mem 0xd0000000-0xd0003fff 64bit]",
          "[    0.0] BIOS-e820: [mem 0x0000000000100000-0x00000000bffdffff] usable",
          "  fed00000-fed003ff : HPET 0",
          "[    1.0] efifb: framebuffer at 0xc0000000, using 3072k"})
        context.line(line);
    const DeviceFacts* const nvme = context.device(Source::pci(1, 0, 0));
    ASSERT_NE(nvme, nullptr);
    EXPECT_EQ(nvme->driver, "nvme");
    EXPECT_EQ(nvme->vendor, 0x144d);
    EXPECT_EQ(nvme->product, 0xa80a);
    EXPECT_EQ(nvme->pci_class, 0x0108);
    EXPECT_EQ(context.at(0xd0001000), "a BAR of 0000:03:00.0");
    EXPECT_EQ(context.at(0x200000), "memory that the firmware calls \"usable\"");
    EXPECT_EQ(context.at(0xfed00010), "HPET 0");
    EXPECT_EQ(context.at(0xc0000010), "the boot framebuffer");
    EXPECT_EQ(context.at(0xdead'beef'0000), "");
    EXPECT_EQ(context.device(Source::pci(9, 0, 0)), nullptr);
}

} // namespace
} // namespace moat::fault
