// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The state file of moat_guard as values, malformed ones among them, and what a user reads.
#include "watch/guard_module.hpp"
#include "watch/guard_state.hpp"
#include "watch/trace/kernel_log.hpp"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <unistd.h>

namespace {

using namespace moat::watch;

const std::string guarded_line = "device 0000:00:04.0 domain=7 guard_bytes=4096 held_pages=256 "
                                 "limit_pages=1024 before=9 padded=5 plain=1 over_budget=2 "
                                 "restored=3 missed=4\n";
const std::string refused_line = "device 0000:00:05.0 refused=identity-domain\n";

PciDevices host_with(std::initializer_list<std::string> addresses) {
    PciDevices host;
    for (const std::string& each : addresses)
        host[each] = {.driver = "nvme", .group = 3, .domain = "DMA-FQ"};
    return host;
}

TEST(GuardState, reads_devices_and_their_counters) {
    const auto state = parse_guard_state("moat_guard 1\n" + guarded_line + refused_line);
    ASSERT_TRUE(state) << state.error();
    ASSERT_EQ(state->size(), 2);
    const GuardDevice& guarded = state->at(0);
    EXPECT_EQ(guarded.address, "0000:00:04.0");
    ASSERT_TRUE(guarded.domain);
    EXPECT_EQ(guarded.domain->guard_bytes, 4096);
    EXPECT_EQ(guarded.domain->over_budget, 2);
    EXPECT_EQ(guarded.domain->missed, 4);
    EXPECT_DOUBLE_EQ(guarded.domain->share(), 25);
    EXPECT_EQ(state->at(1).refused, "identity-domain");
    EXPECT_FALSE(state->at(1).domain);
}

TEST(GuardState, ignores_fields_of_later_modules) {
    const auto state = parse_guard_state("moat_guard 1\ndevice 0000:00:04.0 colour=3 padded=5\n");
    ASSERT_TRUE(state) << state.error();
    EXPECT_EQ(state->at(0).domain->padded, 5);
}

TEST(GuardState, rejects_what_it_cannot_read) {
    for (const std::string& text :
         {std::string(), std::string("moat_guard 2\n"), std::string("moat_guard 10\n"),
          std::string("moat_guard 1\ndevice\n"), std::string("moat_guard 1\n\n"),
          std::string("moat_guard 1\ndomain 0000:00:04.0 padded=5\n"),
          std::string("moat_guard 1\ndevice 0000:00:04.0 padded=-5\n"),
          std::string("moat_guard 1\ndevice 0000:00:04.0 padded=99999999999999999999\n"),
          std::string("moat_guard 1\ndevice 0000:00:04.0 padded\n"),
          std::string("moat_guard 1\ndevice 0000:00:04.0 padded=5x\n"),
          std::string("moat_guard 1\ndevice 0000:00:04.0 refused=\n")})
        EXPECT_FALSE(parse_guard_state(text)) << text;
}

TEST(GuardState, reads_every_prefix_without_a_wrong_value) {
    const std::string whole = "moat_guard 1\n" + guarded_line + refused_line;
    for (std::size_t end = 0; end != whole.size(); ++end)
        if (const auto state = parse_guard_state(std::string_view(whole).substr(0, end))) {
            EXPECT_LE(state->size(), 2);
        }
}

TEST(GuardState, says_why_a_device_has_no_guard) {
    const auto known = parse_guard_state("moat_guard 1\n" + guarded_line + refused_line);
    ASSERT_TRUE(known);
    const PciDevices host = host_with({"0000:00:04.0", "0000:00:05.0", "0000:00:06.0"});
    const auto devices = guarded_devices(host, *known, true);
    ASSERT_EQ(devices.size(), 3);
    EXPECT_TRUE(devices[0].is_guarded());
    EXPECT_TRUE(devices[1].reason.starts_with("identity domain"));
    EXPECT_EQ(devices[2].reason, "not chosen");
    for (const GuardedDevice& each : guarded_devices(host, *known, false))
        EXPECT_EQ(each.reason, "guards are off");
}

std::string fault_record(std::uint64_t microseconds, const std::string& device) {
    return "3,1," + std::to_string(microseconds) +
           ",-;DMAR: [DMA Write NO_PASID] Request device [" + device +
           "] fault addr 0x1000 [fault reason 0x05] PTE Write access is not set\n";
}

TEST(GuardState, counts_the_faults_since_the_guards_began) {
    const auto known = parse_guard_state(
        "moat_guard 1\ndevice 0000:00:04.0 guard_bytes=4096 since_us=2000\n" + refused_line);
    ASSERT_TRUE(known);
    auto devices = guarded_devices(host_with({"0000:00:04.0", "0000:00:05.0"}), *known, true);
    const std::string before = fault_record(1999, "00:04.0");
    const std::string others = "6,2,2500,-;usb 1-1: new device\n" + fault_record(3000, "00:05.0") +
                               fault_record(3000, "0001:00:04.0");
    const std::string own =
        fault_record(2000, "00:04.0") + " SUBSYSTEM=pci\n" + fault_record(2001, "0000:00:04.0");
    count_faults(devices, before + others);
    EXPECT_EQ(devices[0].faults, 0);
    count_faults(devices, before + own + others + own);
    EXPECT_EQ(devices[0].faults, 4);
    EXPECT_FALSE(devices[1].faults) << "it is not guarded";
    count_faults(devices, "3,3,2000,-;virtio_iommu virtio0: page fault from EP 32 at 0x1000 []\n"
                          "3,4,2001,-;virtio_iommu virtio0: page fault from EP 40 at 0x1000 []\n");
    EXPECT_EQ(devices[0].faults, 1) << "endpoint 32 is 00:04.0";
}

TEST(GuardState, computes_the_guard_as_the_module_does) {
    const auto guard = [](std::uint64_t start, std::uint64_t bytes, std::uint64_t kib) {
        return module_guard(*moat::IovaRange::make(moat::Iova(start), moat::ByteCount(bytes)),
                            kib << 10) >>
               10;
    };
    EXPECT_EQ(guard(0x1000, 0x1000, 4), 4);
    EXPECT_EQ(guard(0x1ffc, 8, 4), 4) << "2 pages";
    EXPECT_EQ(guard(0x1000, 0x1000, 1024), 1020) << "257 pages are cut to 256";
    EXPECT_EQ(guard(0x1000, 64 << 12, 1024), 768) << "by a quarter at most";
    EXPECT_EQ(guard(0x1000, 65 << 12, 1024), 1024);
    EXPECT_EQ(guard(0x1000, 0x3000, 0), 0);
}

TEST(GuardState, leaves_out_devices_without_a_driver) {
    PciDevices host = host_with({"0000:00:04.0"});
    host["0000:00:05.0"] = {};
    EXPECT_EQ(guarded_devices(host, {}, true).size(), 1);
}

/// A root with the module's parameters.
class GuardModuleTest : public testing::Test {
  protected:
    GuardModuleTest() {
        std::filesystem::create_directories(parameters);
        for (const char* name : {"size", "budget", "devices"})
            std::ofstream(parameters / name) << "50\n";
    }

    ~GuardModuleTest() override { std::filesystem::remove_all(root); }

    [[nodiscard]] std::string parameter(const char* name) const {
        std::ifstream in(parameters / name);
        return {std::istreambuf_iterator<char>(in), {}};
    }

    std::filesystem::path root =
        std::filesystem::path(testing::TempDir()) / ("guard_" + std::to_string(::getpid()));
    std::filesystem::path parameters = root / "sys/module/moat_guard/parameters";
};

TEST_F(GuardModuleTest, writes_what_the_kernel_reads) {
    const GuardModule module(root);
    const std::vector<std::string> addresses = {"0000:00:04.0", "0000:00:05.0"};
    EXPECT_TRUE(module.is_loaded());
    EXPECT_TRUE(module.choose(addresses));
    EXPECT_EQ(parameter("devices"), "0000:00:04.0,0000:00:05.0\n");
    EXPECT_TRUE(module.choose({}));
    EXPECT_EQ(parameter("devices"), "\n");
    EXPECT_TRUE(module.set_size(64));
    const auto settings = module.settings();
    ASSERT_TRUE(settings) << settings.error();
    EXPECT_EQ(settings->size_kib, 64);
    EXPECT_EQ(settings->budget, 50);
}

TEST_F(GuardModuleTest, adds_guards_to_the_devices_of_the_host) {
    PciDevices host = host_with({"0000:00:04.0", "0000:00:05.0"});
    add_guards(host, root);
    EXPECT_EQ(host["0000:00:04.0"].guard_bytes, 0) << "there is no state";
    std::filesystem::create_directories(root / "sys/kernel/debug/moat_guard");
    std::ofstream(root / "sys/kernel/debug/moat_guard/state")
        << "moat_guard 1\n"
        << guarded_line << refused_line << "device 0000:00:06.0 guard_bytes=4096\n";
    add_guards(host, root);
    EXPECT_EQ(host["0000:00:04.0"].guard_bytes, 4096);
    EXPECT_EQ(host["0000:00:05.0"].guard_bytes, 0);
    EXPECT_EQ(host.size(), 2);
}

TEST_F(GuardModuleTest, reads_the_whole_kernel_log) {
    EXPECT_FALSE(read_kernel_log(root));
    std::filesystem::create_directories(root / "dev");
    const std::string log(20'000, 'x');
    std::ofstream(root / "dev/kmsg") << log;
    EXPECT_EQ(read_kernel_log(root), log);
}

TEST_F(GuardModuleTest, names_the_file_that_it_cannot_use) {
    const GuardModule module(root / "nowhere");
    EXPECT_FALSE(module.is_loaded());
    for (const std::string& error :
         {module.set_size(4).error(), module.settings().error(), module.state().error()})
        EXPECT_NE(error.find("nowhere/sys/"), std::string::npos) << error;
    EXPECT_NE(module.load(root / "none.ko").error().find("none.ko"), std::string::npos);
}

} // namespace
