// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The live source against a folder that looks like a machine: what it finds, refuses and undoes.
#include "trace_data.hpp"
#include "watch/trace/instance.hpp"
#include "watch/trace/kernel_log.hpp"
#include "watch/trace/pci_devices.hpp"
#include "watch/trace/source.hpp"
#include "watch/trace/trace_files.hpp"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace moat::watch {
namespace {

namespace fs = std::filesystem;

/// A machine whose instance "boot" recorded the capture of Linux 6.12.
class FakeMachine : public testing::Test {
  protected:
    FakeMachine() {
        static unsigned number = 0;
        root_ = fs::temp_directory_path() /
                ("moat-trace-" + std::to_string(::getpid()) + "-" + std::to_string(number++));
        write("proc/mounts",
              "proc /proc proc rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0\n");
        write("proc/sys/kernel/osrelease", "6.12.117+deb12-amd64\n");
        for (const auto& [path, text] : capture_.files)
            if (!path.starts_with("events/moat_")) // a probe, gone with its process
                write("sys/kernel/tracing/" + path, text);
        fs::create_directories(tracefs() / "instances");
        add_device("0000:00:05.0", "nvme", 2, "DMA-FQ");
        add_device("0000:00:06.0", "e1000e", 3, "identity");
        add_device("0000:00:07.0", "", 2, "DMA-FQ");
    }

    FakeMachine(const FakeMachine&) = delete;
    FakeMachine& operator=(const FakeMachine&) = delete;

    ~FakeMachine() override { fs::remove_all(root_); }

    [[nodiscard]] fs::path tracefs() const { return root_ / "sys/kernel/tracing"; }

    void write(const fs::path& file, std::string_view text) const {
        fs::create_directories((root_ / file).parent_path());
        std::ofstream(root_ / file, std::ios::binary) << text;
    }

    void add_device(const std::string& name, const std::string& driver, unsigned group,
                    const std::string& domain) const {
        const fs::path device = root_ / "sys/bus/pci/devices" / name;
        const std::string folder = "sys/kernel/iommu_groups/" + std::to_string(group);
        fs::create_directories(device);
        write(folder + "/type", domain + "\n");
        fs::create_directory_symlink(root_ / folder, device / "iommu_group");
        if (!driver.empty())
            fs::create_directory_symlink("../../drivers/" + driver, device / "driver");
    }

    /// An instance that recorded the capture's pages.
    void add_instance(const std::string& name, std::string_view clocks = "local [mono]") const {
        const std::string folder = "sys/kernel/tracing/instances/" + name + "/";
        write(folder + "trace_clock", clocks);
        for (const std::string event : {"dma/dma_map_page", "dma/dma_map_sg", "dma/dma_unmap_page",
                                        "dma/dma_unmap_sg", "printk/console"})
            write(folder + "events/" + event + "/enable", "1\n");
        write(folder + "events/dma/dma_alloc/enable", "0\n");
        write(folder + "events/dma/dma_map_sg/trigger", "stacktrace:unlimited\n");
        for (const auto& [cpu, page] : capture_.pages)
            write(folder + "per_cpu/cpu" + std::to_string(cpu) + "/trace_pipe_raw",
                  {reinterpret_cast<const char*>(page.data()), page.size()});
    }

    [[nodiscard]] static std::string error_of(const SourceOptions& options) {
        const auto source = TraceSource::begin(options);
        return source ? "" : source.error();
    }

    [[nodiscard]] SourceOptions options(std::vector<std::string> devices = {},
                                        std::string instance = "boot") const {
        return {.devices = std::move(devices), .instance = std::move(instance), .root = root_};
    }

    TraceCapture capture_ = read_capture(MOAT_TEST_DATA "/linux_6.12.trace");
    fs::path root_;
};

using TraceSourceTest = FakeMachine;

TEST_F(TraceSourceTest, reads_an_instance_of_another_and_changes_nothing) {
    add_instance("boot");
    auto source = TraceSource::begin(options());
    ASSERT_TRUE(source) << source.error();
    std::vector<std::string> events;
    const auto keep = [&](const fault::DmaEvent& event) {
        events.push_back(std::string(fault::name(event.kind)) + ' ' + std::string(event.device));
    };
    ASSERT_TRUE(source->poll(keep));
    ASSERT_TRUE(source->finish(keep));
    EXPECT_EQ(events, (std::vector<std::string>{"device 0000:00:05.0", "device 0000:00:06.0",
                                                "device 0000:00:07.0", "map 0000:00:05.0",
                                                "unmap 0000:00:05.0", "map 0000:00:05.0",
                                                "unmap 0000:00:05.0", "map 0000:00:05.0",
                                                "fault 0000:00:05.0", "unmap 0000:00:05.0"}));
    source = std::unexpected("closed");
    EXPECT_EQ(read_line(tracefs() / "instances/boot/trace_clock"), "local [mono]");
    EXPECT_EQ(read_line(tracefs() / "instances/boot/events/dma/dma_alloc/enable"), "0");
    EXPECT_FALSE(fs::exists(tracefs() / "dynamic_events"));
}

TEST_F(TraceSourceTest, reads_the_log_where_the_instance_has_no_lines) {
    add_instance("boot", "[local] mono");
    write("sys/kernel/tracing/instances/boot/per_cpu/cpu0/stats", "now ts:     9.000001\n");
    write("sys/kernel/tracing/instances/boot/events/printk/console/enable", "0\n");
    write("dev/kmsg",
          "4,1,1000000,-;DMAR: [DMA Read] Request device [00:05.0] fault addr 0x1000\n");
    auto source = TraceSource::begin(options());
    ASSERT_TRUE(source) << source.error();
    std::ofstream(root_ / "dev/kmsg", std::ios::app)
        << "4,2,2000000,-;DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0x2000 "
           "[fault reason 0x05] PTE Write access is not set\n";
    std::vector<std::uint64_t> faults;
    const auto keep = [&](const fault::DmaEvent& event) {
        if (event.kind != fault::DmaEvent::Kind::fault)
            return;
        const std::uint64_t address = event.record.where.start().value();
        faults.push_back(address);
        EXPECT_TRUE(address != 0x2000 || event.record.time_ns == 2'000'000'000U);
    };
    ASSERT_TRUE(source->poll(keep));
    ASSERT_TRUE(source->finish(keep));
    EXPECT_EQ(faults, (std::vector<std::uint64_t>{0x2000, 0})); // 0: the capture's
}

TEST_F(TraceSourceTest, names_its_sources) {
    add_instance("boot");
    const auto source = TraceSource::begin(options({"nvme"}));
    ASSERT_TRUE(source) << source.error();
    EXPECT_EQ(source->sources(),
              (std::vector<std::string>{
                  "Linux 6.12.117+deb12-amd64", "mappings by 4 events dma:*", "stacks by a trigger",
                  "faults by the event printk:console",
                  std::string("the instance does not record dma_alloc, dma_alloc_sgt, dma_free, ") +
                      "dma_free_sgt: what they map or unmap is unknown"}));
    EXPECT_EQ(source->devices(), std::vector<std::string>{"0000:00:05.0"});
}

TEST_F(TraceSourceTest, describes_devices_and_reports_their_removal) {
    const PciDevices before = read_pci_devices(root_);
    PciDevices now = before;
    now.erase("0000:00:05.0");
    now["0000:00:07.0"].driver = "xhci_hcd";
    std::vector<std::string> events;
    const auto keep = [&](const fault::DmaEvent& event) {
        events.push_back(std::string(fault::name(event.kind)) + ' ' + std::string(event.device) +
                         ' ' + std::string(event.driver) + ' ' +
                         std::to_string(event.group.value_or(99)) +
                         (event.translated ? "" : " untranslated"));
    };
    compare_devices({}, before, 0, keep);
    compare_devices(before, now, 5, keep);
    EXPECT_EQ(events, (std::vector<std::string>{
                          "device 0000:00:05.0 nvme 2", "device 0000:00:06.0 e1000e 3 untranslated",
                          "device 0000:00:07.0  2", "removed 0000:00:05.0  99",
                          "device 0000:00:07.0 xhci_hcd 2"}));
}

TEST_F(TraceSourceTest, selects_by_address_and_driver_with_the_whole_group) {
    const PciDevices devices = read_pci_devices(root_);
    const std::vector<std::string> wanted = {"nvme", "00:06.0"};
    const auto selected = select_devices(devices, wanted);
    ASSERT_TRUE(selected);
    EXPECT_EQ(*selected, (std::vector<std::string>{"0000:00:05.0", "0000:00:06.0"}));
    EXPECT_EQ(with_group_mates(devices, *selected),
              (std::set<std::string, std::less<>>{"0000:00:05.0", "0000:00:06.0", "0000:00:07.0"}));
}

TEST_F(TraceSourceTest, refuses_what_cannot_be_seen) {
    add_instance("boot");
    EXPECT_NE(error_of(options({"nvmee"})).find("unknown device \"nvmee\""), std::string::npos);
    EXPECT_NE(error_of(options({"e1000e"})).find("0000:00:06.0 has an identity domain"),
              std::string::npos);
    EXPECT_NE(error_of(options({}, "other")).find("no tracefs instance \"other\"; instances: boot"),
              std::string::npos);
    add_instance("ticks", "[counter] mono");
    EXPECT_NE(error_of(options({}, "ticks")).find("the clock \"counter\""), std::string::npos);
    fs::remove_all(root_ / "sys/bus/pci/devices");
    EXPECT_NE(error_of(options()).find("no PCI device is behind"), std::string::npos);
    fs::remove_all(tracefs());
    EXPECT_NE(error_of(options()).find("no tracefs is mounted"), std::string::npos);
}

TEST_F(TraceSourceTest, names_lockdown_where_the_kernel_refuses) {
    EXPECT_EQ(refusal(root_, "cannot create x", EPERM),
              "cannot create x (Operation not permitted): run as root");
    write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    EXPECT_NE(refusal(root_, "cannot create x", EPERM).find("kernel lockdown (confidentiality)"),
              std::string::npos);
}

TEST_F(TraceSourceTest, removes_what_dead_processes_left_and_nothing_else) {
    for (const std::string name : {"moat-77", "moat-78", "moat-x", "other"})
        fs::create_directories(tracefs() / "instances" / name);
    write("proc/78/comm", "moat\n");
    const std::string probes = "f:moat_77/alloc iommu_dma_alloc_iova%return r=$retval:x64\n"
                               "r16:moat_77/free free_iova_fast\n"
                               "f:moat_78/alloc iommu_dma_alloc_iova%return\n"
                               "p:moat_770/alloc iommu_dma_alloc_iova\n";
    write("sys/kernel/tracing/dynamic_events", probes);
    EXPECT_EQ(remove_dead(root_, tracefs()), std::vector<std::string>{"77"});
    EXPECT_EQ(names_in(tracefs() / "instances"),
              (std::vector<std::string>{"moat-78", "moat-x", "other"}));
    EXPECT_EQ(read_file(tracefs() / "dynamic_events"),
              probes + "-:moat_77/alloc\n-:moat_77/free\n");
}

TEST_F(TraceSourceTest, creates_an_instance_of_its_own_and_removes_it) {
    write("sys/kernel/tracing/dynamic_events", "");
    const std::string number = std::to_string(::getpid());
    {
        const auto instance = TraceInstance::create(root_, tracefs());
        ASSERT_TRUE(instance) << instance.error();
        EXPECT_EQ(names_in(tracefs() / "instances"), std::vector<std::string>{"moat-" + number});
        EXPECT_TRUE(instance->add_probe("f", "free", "free_iova_fast"));
        write("sys/kernel/tracing/kprobe_profile", "  alloc   12   3\n  free  9  4\n  x 1 1\n");
        EXPECT_EQ(instance->missed_kprobes(), 7U);
    }
    EXPECT_EQ(names_in(tracefs() / "instances"), std::vector<std::string>());
    EXPECT_EQ(read_file(tracefs() / "dynamic_events"),
              "f:moat_" + number + "/free free_iova_fast\n-:moat_" + number + "/free\n");
}

/// Reading /proc/PID/comm fails if its thread ends after the file was opened; so does a folder.
TEST_F(TraceSourceTest, a_file_that_opens_and_cannot_be_read_has_no_text) {
    EXPECT_EQ(read_file(tracefs()), std::nullopt);
    EXPECT_EQ(read_line(tracefs()), "");
    write("proc/long", std::string(200'000, 'x') + "\n");
    EXPECT_EQ(read_line(root_ / "proc/long"), std::string(200'000, 'x'));
}

TEST(KernelLogTest, reads_the_time_and_the_text_of_a_record) {
    const auto line = parse_log_record("4,1234,5879770,-;DMAR: DRHD: handling\n SUBSYSTEM=pci\n");
    ASSERT_TRUE(line);
    EXPECT_EQ(line->time_ns, 5'879'770'000U);
    EXPECT_EQ(line->text, "DMAR: DRHD: handling");
    for (const std::string_view broken : {"", ";", "4;x", "4,1;x", "4,1,;x", "4,1,x,-;y",
                                          "4,1,99999999999999999999,-;x", "a;4,1,2,-"})
        EXPECT_FALSE(parse_log_record(broken)) << broken;
}

} // namespace
} // namespace moat::watch
