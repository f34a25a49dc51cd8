// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/sysfs_tree.hpp"

#include "run/device_kinds.hpp"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <vector>

namespace moat::run {

namespace {

using machine::soft::Face;
namespace fs = std::filesystem;

/// Where the first BAR seems to lie; programs only compare these addresses.
constexpr std::uint64_t first_bar_address = 0xfe00'0000;

constexpr std::uint64_t flag_memory = 0x200;
constexpr std::uint64_t flag_memory64 = 0x0010'0000;

class Writer {
  public:
    explicit Writer(fs::path root) : root_(std::move(root)) {}

    void folder(const fs::path& path) {
        std::error_code error;
        fs::create_directories(root_ / path, error);
        note(error, path);
    }

    void file(const fs::path& path, std::string_view text) {
        folder(path.parent_path());
        std::ofstream out(root_ / path, std::ios::binary);
        out << text;
        if (!out.flush())
            note(std::make_error_code(std::errc::io_error), path);
    }

    void link(const fs::path& path, const fs::path& target) {
        folder(path.parent_path());
        std::error_code error;
        fs::create_symlink(target, root_ / path, error);
        note(error, path);
    }

    [[nodiscard]] const std::string& problem() const { return problem_; }

  private:
    void note(const std::error_code& error, const fs::path& path) {
        if (error && problem_.empty())
            problem_ = (root_ / path).string() + ": " + error.message();
    }

    fs::path root_;
    std::string problem_;
};

[[nodiscard]] std::string hex_line(std::uint64_t value, int digits) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%0*llx\n", digits, static_cast<unsigned long long>(value));
    return text;
}

/// The file `resource`: start, last byte and flags of each BAR, and of six more.
[[nodiscard]] std::string resources_of(const machine::FunctionInfo& info) {
    constexpr unsigned lines = 13;
    std::string text;
    std::uint64_t next = first_bar_address;
    for (unsigned index = 0; index != lines; ++index) {
        std::uint64_t start = 0;
        std::uint64_t last = 0;
        std::uint64_t flags = 0;
        if (index < info.bars.size() && info.bars[index].size.value() != 0) {
            const std::uint64_t size = info.bars[index].size.value();
            start = (next + size - 1) / size * size;
            last = start + size - 1;
            flags = flag_memory |
                    (info.bars[index].kind == machine::BarKind::memory64 ? flag_memory64 : 0);
            next = last + 1;
        }
        char line[80];
        std::snprintf(line, sizeof line, "0x%016llx 0x%016llx 0x%016llx\n",
                      static_cast<unsigned long long>(start), static_cast<unsigned long long>(last),
                      static_cast<unsigned long long>(flags));
        text += line;
    }
    return text;
}

[[nodiscard]] std::string config_of(Face& face) {
    std::string bytes(face.region(Face::config_region).size.value(), '\0');
    (void)face.read(Face::config_region, 0, std::as_writable_bytes(std::span(bytes)));
    return bytes;
}

/// As each device's group has it: what cannot be mapped.
[[nodiscard]] std::string reserved_regions(const Limits& limits) {
    std::string text = "0x00000000fee00000 0x00000000feefffff msi\n";
    for (const IovaRange& each : limits.reserved) {
        char line[80];
        std::snprintf(line, sizeof line, "0x%016llx 0x%016llx reserved\n",
                      static_cast<unsigned long long>(each.start().value()),
                      static_cast<unsigned long long>(each.last().value()));
        text += line;
    }
    return text;
}

void write_device(Writer& out, const DeviceChoice& choice, unsigned index, const Options& options) {
    const SoftDevice device = make_device(choice, {});
    const machine::FunctionInfo& info = device.face->info();
    const std::string address = machine::to_string(choice.address);
    const fs::path folder = "sys/bus/pci/devices/" + address;
    const std::string config = config_of(*device.face);
    const auto word = [&](std::size_t at) {
        return static_cast<std::uint8_t>(config[at]) |
               static_cast<unsigned>(static_cast<std::uint8_t>(config[at + 1])) << 8;
    };
    out.file(folder / "vendor", hex_line(info.vendor, 4));
    out.file(folder / "device", hex_line(info.device, 4));
    out.file(folder / "class", hex_line(info.class_code, 6));
    out.file(folder / "subsystem_vendor", hex_line(word(0x2c), 4));
    out.file(folder / "subsystem_device", hex_line(word(0x2e), 4));
    out.file(folder / "revision", hex_line(static_cast<std::uint8_t>(config[8]), 2));
    out.file(folder / "numa_node", "-1\n");
    out.file(folder / "irq", "0\n");
    out.file(folder / "enable", "1\n");
    out.file(folder / "resource", resources_of(info));
    out.file(folder / "config", config);
    out.file(folder / "uevent", "DRIVER=vfio-pci\nPCI_SLOT_NAME=" + address + '\n');
    out.link(folder / "driver", "../../drivers/vfio-pci");
    out.link(folder / "subsystem", "../../../pci");
    const std::string group = std::to_string(choice.group());
    out.link(folder / "iommu_group", "../../../../kernel/iommu_groups/" + group);
    const fs::path of_group = "sys/kernel/iommu_groups/" + group;
    out.link(of_group / "devices" / address, "../../../../bus/pci/devices/" + address);
    out.file(of_group / "type", "DMA\n");
    out.file(of_group / "reserved_regions", reserved_regions(options.limits));
    out.link("sys/bus/pci/drivers/vfio-pci/" + address, "../../devices/" + address);
    if (options.api != Api::iommufd)
        out.file("dev/vfio/" + group, "");
    if (options.api == Api::type1)
        return;
    const std::string number = "vfio" + std::to_string(index);
    out.file(folder / "vfio-dev" / number / "dev", "511:" + std::to_string(index) + '\n');
    out.file("dev/vfio/devices/" + number, "");
}

} // namespace

std::expected<void, std::string> write_sysfs_tree(const Options& options) {
    Writer out(options.folder);
    out.folder("sys/bus/pci/devices");
    out.file("sys/bus/pci/drivers/vfio-pci/new_id", "");
    out.folder("sys/kernel/iommu_groups");
    out.file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n");
    out.file("sys/module/vfio_pci/initstate", "live\n");
    if (options.api != Api::iommufd)
        out.file("dev/vfio/vfio", "");
    out.folder("dev/vfio");
    out.file("dev/iommu", ""); // opens with ENODEV where the kernel has no iommufd
    for (unsigned index = 0; index != options.devices.size(); ++index)
        write_device(out, options.devices[index], index, options);
    if (!out.problem().empty())
        return std::unexpected(out.problem());
    return {};
}

} // namespace moat::run
