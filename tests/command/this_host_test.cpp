// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What `moat explain --here` reads of a host, from a made-up /sys and /proc.
#include "command/this_host.hpp"
#include "fault/log_group.hpp"

#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

namespace fs = std::filesystem;

class ThisHost : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = fs::temp_directory_path() / "moat-this-host-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        root_ = name;
    }

    void TearDown() override { fs::remove_all(root_); }

    void write(const fs::path& file, std::string_view text) const {
        fs::create_directories((root_ / file).parent_path());
        std::ofstream(root_ / file) << text;
    }

    fs::path root_;
};

TEST_F(ThisHost, names_devices_and_addresses) {
    const fs::path device = "sys/bus/pci/devices/0000:01:00.0";
    write(device / "vendor", "0x144d\n");
    write(device / "device", "0xa80a\n");
    write(device / "class", "0x010802\n");
    fs::create_symlink("../../drivers/nvme", root_ / device / "driver");
    write("sys/bus/pci/devices/not-a-function/vendor", "0x1\n");
    write("sys/kernel/iommu_groups/7/reserved_regions",
          "0x00000000fee00000 0x00000000feefffff msi\n");
    write("proc/iomem", "00100000-bffdffff : System RAM\n  00200000-002fffff : Kernel code\n");
    fault::LogContext context;
    tools::add_this_host(context, root_);
    const fault::DeviceFacts* const nvme = context.device(fault::Source::pci(1, 0, 0));
    ASSERT_NE(nvme, nullptr);
    EXPECT_EQ(nvme->driver, "nvme");
    EXPECT_EQ(nvme->vendor, 0x144d);
    EXPECT_EQ(nvme->product, 0xa80a);
    EXPECT_EQ(nvme->pci_class, 0x0108);
    EXPECT_EQ(context.at(0xfee00010), "a reserved range (msi)");
    EXPECT_EQ(context.at(0x200000), "Kernel code");
    EXPECT_EQ(context.at(0x400000), "System RAM");
}

TEST_F(ThisHost, without_anything_is_empty) {
    fault::LogContext context;
    tools::add_this_host(context, root_);
    EXPECT_EQ(context.device(fault::Source::pci(0, 0, 0)), nullptr);
    EXPECT_EQ(context.at(0x1000), "");
}

} // namespace
} // namespace moat::tests
