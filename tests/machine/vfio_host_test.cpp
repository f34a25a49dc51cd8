// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How machine/vfio_host reads sysfs and the kernel's log, on files of the test's own. tests/vm
// covers what needs a kernel.
#include "moat/core/text.hpp"

#include "machine/vfio_host/host_faults.hpp"
#include "machine/vfio_host/kernel_domain.hpp"
#include "machine/vfio_host/pci_devices.hpp"

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <vector>

namespace moat::tests {
namespace {

namespace fs = std::filesystem;
using namespace machine::vfio_host;
using machine::Bdf;

class Folder {
  public:
    Folder() {
        std::string name = fs::temp_directory_path() / "moat-vfio-XXXXXX";
        path_ = ::mkdtemp(name.data());
    }

    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    ~Folder() { fs::remove_all(path_); }

    [[nodiscard]] const fs::path& path() const { return path_; }

  private:
    fs::path path_;
};

class SysfsTest : public ::testing::Test {
  protected:
    void SetUp() override {
        fs::create_directories(root() / "bus/pci/devices");
        fs::create_directories(root() / "bus/pci/drivers/nvme");
        write("bus/pci/drivers_probe", "");
    }

    [[nodiscard]] const fs::path& root() const { return folder_.path(); }

    [[nodiscard]] std::string root_text() const { return folder_.path().string(); }

    void write(const fs::path& file, const std::string& text) const {
        std::ofstream(root() / file) << text;
    }

    void add(const std::string& address, const std::string& class_code, const char* driver,
             const char* group) const {
        const fs::path at = fs::path("bus/pci/devices") / address;
        fs::create_directories(root() / at);
        write(at / "vendor", "0x1b36\n");
        write(at / "device", "0x0010\n");
        write(at / "class", class_code + "\n");
        write(at / "numa_node", "-1\n");
        write(at / "driver_override", "(null)\n");
        write(at / "resource", "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n"
                               "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
                               "0x0000000800000000 0x00000008ffffffff 0x000000000014220c\n"
                               "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
                               "0x000000000000c000 0x000000000000c01f 0x0000000000040101\n");
        if (driver != nullptr)
            fs::create_directory_symlink("../../drivers/" + std::string(driver),
                                         root() / at / "driver");
        if (group != nullptr)
            fs::create_symlink("../../../kernel/iommu_groups/" + std::string(group),
                               root() / at / "iommu_group");
    }

  private:
    Folder folder_;
};

TEST_F(SysfsTest, functions_are_listed_in_order_with_what_is_known) {
    add("0001:00:00.0", "0x020000", nullptr, nullptr);
    add("0000:00:05.0", "0x010802", "nvme", "7");
    const auto found = list_functions(root_text());
    ASSERT_TRUE(found) << found.error();
    ASSERT_EQ(found->size(), 2U);
    const HostFunction& nvme = found->at(0);
    EXPECT_EQ(nvme.info.address, Bdf(0, 5, 0));
    EXPECT_EQ(nvme.info.vendor, 0x1b36);
    EXPECT_EQ(nvme.info.device, 0x0010);
    EXPECT_EQ(nvme.info.class_code, 0x010802U);
    EXPECT_EQ(nvme.driver, "nvme");
    EXPECT_EQ(nvme.group, 7U);
    EXPECT_EQ(nvme.node, std::nullopt);
    EXPECT_EQ(nvme.info.bars[0].kind, machine::BarKind::memory64);
    EXPECT_EQ(nvme.info.bars[0].size, ByteCount(0x4000));
    EXPECT_EQ(nvme.info.bars[1].kind, machine::BarKind::absent);
    EXPECT_EQ(nvme.info.bars[2].size, ByteCount(0x100000000));
    EXPECT_TRUE(nvme.info.bars[2].prefetchable);
    EXPECT_EQ(nvme.info.bars[4].kind, machine::BarKind::ports);
    EXPECT_EQ(found->at(1).info.address, Bdf(0, 0, 0, 1));
    EXPECT_EQ(found->at(1).driver, "");
    EXPECT_EQ(found->at(1).group, std::nullopt);
}

TEST_F(SysfsTest, an_address_is_read_with_and_without_its_segment) {
    EXPECT_EQ(parse_bdf("0000:00:04.0"), Bdf(0, 4, 0));
    EXPECT_EQ(parse_bdf("ff:1f.7"), Bdf(255, 31, 7));
    EXPECT_EQ(parse_bdf("00ab:02:00.1"), Bdf(2, 0, 1, 0xab));
    for (const char* wrong : {"", "4", "00:04", "00:20.0", "00:04.8", "x:04.0", "0:0:0:0.0", ":.0",
                              "12345:00:00.0", "00:04.0 "})
        EXPECT_FALSE(parse_bdf(wrong)) << wrong;
}

TEST_F(SysfsTest, what_cannot_be_bound_is_refused_before_anything_is_written) {
    add("0000:00:1f.0", "0x060100", nullptr, "3");
    add("0000:00:05.0", "0x010802", "nvme", nullptr);
    add("0000:00:06.0", "0x010802", "nvme", "7");
    EXPECT_EQ(bind_to_vfio(Bdf(0, 31, 0), root_text()).error().code(), ErrorCode::refused);
    EXPECT_EQ(bind_to_vfio(Bdf(0, 5, 0), root_text()).error().code(), ErrorCode::unsupported);
    EXPECT_EQ(bind_to_vfio(Bdf(0, 9, 0), root_text()).error().code(), ErrorCode::not_found);
    EXPECT_EQ(bind_to_vfio(Bdf(0, 6, 0), root_text()).error().code(), ErrorCode::not_found)
        << "vfio-pci is not loaded";
    EXPECT_EQ(unbind_from_vfio(Bdf(0, 6, 0), root_text()).error().code(), ErrorCode::mismatch);
    std::string override_text;
    std::ifstream(root() / "bus/pci/devices/0000:00:06.0/driver_override") >> override_text;
    EXPECT_EQ(override_text, "(null)");
}

TEST_F(SysfsTest, what_is_bound_already_is_left_alone_and_given_back_when_asked) {
    fs::create_directories(root() / "bus/pci/drivers/vfio-pci");
    add("0000:00:05.0", "0x010802", "vfio-pci", "7");
    write("bus/pci/drivers/vfio-pci/unbind", "");
    EXPECT_TRUE(bind_to_vfio(Bdf(0, 5, 0), root_text()));
    EXPECT_TRUE(unbind_from_vfio(Bdf(0, 5, 0), root_text()));
    for (const char* file : {"bus/pci/drivers/vfio-pci/unbind", "bus/pci/drivers_probe"}) {
        std::string text;
        std::ifstream(root() / file) >> text;
        EXPECT_EQ(text, "0000:00:05.0") << file;
    }
}

TEST_F(SysfsTest, no_sysfs_is_said_so) {
    EXPECT_EQ(list_functions((root() / "nowhere").string()).error().code(), ErrorCode::not_found);
}

/// Every IOMMU's tables end there, whatever its driver reports: AMD's reports all 64 bits.
TEST(ReachableTest, what_lies_above_57_bits_is_left_out) {
    constexpr std::uint64_t end = std::uint64_t{1} << 57;
    std::vector<IovaRange> ranges;
    KernelDomain::add_reachable(ranges, 0, 0xfedfffff);
    KernelDomain::add_reachable(ranges, 0xfef00000, ~std::uint64_t{0});
    KernelDomain::add_reachable(ranges, end, ~std::uint64_t{0});
    KernelDomain::add_reachable(ranges, 2, 1);
    EXPECT_EQ(ranges, (std::vector{IovaRange(Iova(0), ByteCount(0xfee00000)),
                                   IovaRange(Iova(0xfef00000), ByteCount(end - 0xfef00000))}));
}

/// A log that returns one record a read, like /dev/kmsg, and counts of interrupts.
class FaultLogTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::array<int, 2> ends{};
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends.data()), 0);
        kernel_ = platform::FileDescriptor(ends[0]);
        set_interrupts(5);
        log_.emplace(platform::FileDescriptor(ends[1]), interrupts_);
    }

    void set_interrupts(unsigned count) const {
        std::ofstream(interrupts_)
            << "            CPU0       CPU1\n"
            << " 24:          2 " << count - 2 << "  DMAR-MSI   0-edge      dmar0\n"
            << " 25:        999          0  DMAR-MSI   1-edge  dmar0-prq\n"
            << " 26:          7          7  IR-PCI-MSI 0-edge  nvme0q0\n";
    }

    void without_interrupts() const { std::ofstream(interrupts_) << "            CPU0\n"; }

    void say(const std::string& record) const {
        ASSERT_EQ(::send(kernel_.get(), record.data(), record.size(), 0),
                  static_cast<ssize_t>(record.size()));
    }

    void say_fault(const char* address) const {
        say("3,812,5191569,-;DMAR: DRHD: handling fault status reg 2\n");
        say(std::string("3,813,5192298,-;DMAR: [DMA Write NO_PASID] Request device [00:04.0] fault "
                        "addr ") +
            address + " [fault reason 0x05] PTE Write access is not set\n SUBSYSTEM=pci\n");
    }

    std::uint64_t take() {
        const auto keep = [&](const fault::LogEvent& decoded) { heard.push_back(decoded.record); };
        const auto lost = log_->take(keep, std::chrono::milliseconds(0));
        EXPECT_TRUE(lost) << lost.error();
        return lost.value_or(0);
    }

    std::vector<fault::Record> heard;

  private:
    Folder folder_;
    std::string interrupts_ = folder_.path() / "interrupts";
    platform::FileDescriptor kernel_;
    std::optional<FaultLog> log_;
};

TEST_F(FaultLogTest, a_line_is_a_fault_with_its_time) {
    say("6,811,5191000,-;pci 0000:00:04.0: noise\n");
    say_fault("0x1001000");
    set_interrupts(6);
    EXPECT_EQ(take(), 0U);
    ASSERT_EQ(heard.size(), 1U);
    EXPECT_EQ(heard[0].where, IovaRange(Iova(0x1001000), ByteCount(4096)));
    EXPECT_EQ(heard[0].time_ns, 5'192'298'000U);
    EXPECT_EQ(take(), 0U);
    EXPECT_EQ(heard.size(), 1U);
}

TEST_F(FaultLogTest, interrupts_without_a_line_are_lost_faults_and_told_once) {
    set_interrupts(8);
    say_fault("0x1001000");
    EXPECT_EQ(take(), 2U);
    EXPECT_EQ(heard.size(), 1U);
    EXPECT_EQ(take(), 0U);
    set_interrupts(9);
    EXPECT_EQ(take(), 1U);
}

/// VT-d's driver has two lines a fault, and the kernel counts lines.
TEST_F(FaultLogTest, what_the_kernel_counts_itself_is_no_second_loss) {
    set_interrupts(9);
    EXPECT_EQ(take(), 4U);
    say("4,820,9000000,-;dmar_fault: 8 callbacks suppressed\n");
    EXPECT_EQ(take(), 0U);
}

TEST_F(FaultLogTest, without_interrupts_to_count_the_kernels_own_count_is_taken) {
    without_interrupts();
    say("4,820,9000000,-;amd_iommu_report_page_fault: 8 callbacks suppressed\n");
    EXPECT_EQ(take(), 8U);
    EXPECT_EQ(take(), 0U);
}

TEST_F(FaultLogTest, several_faults_of_one_interrupt_are_no_loss) {
    set_interrupts(6);
    say_fault("0x1001000");
    say_fault("0x1002000");
    EXPECT_EQ(take(), 0U);
    EXPECT_EQ(heard.size(), 2U);
}

} // namespace
} // namespace moat::tests
