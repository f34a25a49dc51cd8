// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "pci_devices.hpp"

#include "core/parse.hpp"
#include "trace_files.hpp"

#include <algorithm>
#include <system_error>

namespace moat::watch {

namespace fs = std::filesystem;
using fault::DmaEvent;

namespace {

/// The last part of what a symbolic link names; empty without a link.
std::string link_name(const fs::path& link) {
    std::error_code error;
    return fs::read_symlink(link, error).filename().string();
}

std::string untranslated(const std::string& name, const PciDevice& device) {
    if (!device.group)
        return name + " is not behind an IOMMU: nothing can be seen; enable VT-d or AMD-Vi in the "
                      "firmware and boot with intel_iommu=on";
    return name +
           " has an identity domain: the IOMMU passes its accesses through and nothing can "
           "be seen; boot with iommu.passthrough=0, or unbind its driver and write DMA-FQ "
           "to /sys/kernel/iommu_groups/" +
           std::to_string(*device.group) + "/type";
}

} // namespace

PciDevices read_pci_devices(const fs::path& root) {
    PciDevices devices;
    const fs::path folder = root / "sys/bus/pci/devices";
    for (const std::string& name : names_in(folder)) {
        const fs::path device = folder / name;
        devices[name] = {.driver = link_name(device / "driver"),
                         .group = number_in<std::uint32_t>(link_name(device / "iommu_group")),
                         .domain = read_line(device / "iommu_group/type")};
    }
    return devices;
}

std::expected<std::vector<std::string>, std::string>
select_devices(const PciDevices& devices, std::span<const std::string> wanted) {
    std::vector<std::string> selected;
    for (const std::string& each : wanted) {
        const std::size_t before = selected.size();
        for (const auto& [name, device] : devices)
            if (name == each || name == "0000:" + each || device.driver == each)
                selected.push_back(name);
        if (selected.size() == before)
            return std::unexpected("unknown device \"" + each +
                                   "\": neither a PCI address nor the driver of a PCI device; "
                                   "`lspci -Dk` lists both");
    }
    const auto is_translated = [&](const std::string& name) {
        return devices.find(name)->second.is_translated();
    };
    if (!selected.empty() && std::ranges::none_of(selected, is_translated))
        return std::unexpected(untranslated(selected[0], devices.find(selected[0])->second));
    const auto is_any = [](const auto& each) { return each.second.is_translated(); };
    if (selected.empty() && std::ranges::none_of(devices, is_any))
        return std::unexpected("no PCI device is behind a translating IOMMU: nothing can be seen; "
                               "enable VT-d or AMD-Vi in the firmware and boot with "
                               "intel_iommu=on iommu.passthrough=0");
    return selected;
}

std::set<std::string, std::less<>> with_group_mates(const PciDevices& devices,
                                                    std::span<const std::string> selected) {
    std::set<std::string, std::less<>> all(selected.begin(), selected.end());
    for (const std::string& each : selected)
        for (const auto& [name, device] : devices)
            if (const auto& group = devices.find(each)->second.group;
                group && device.group == group)
                all.insert(name);
    return all;
}

void compare_devices(const PciDevices& before, const PciDevices& now, std::uint64_t time_ns,
                     fault::DmaEventSink sink) {
    for (const auto& [name, device] : before)
        if (!now.contains(name))
            sink(DmaEvent{.kind = DmaEvent::Kind::removed, .time_ns = time_ns, .device = name});
    for (const auto& [name, device] : now) {
        const auto old = before.find(name);
        if (old != before.end() && old->second == device)
            continue;
        sink(DmaEvent{.kind = DmaEvent::Kind::device,
                      .time_ns = time_ns,
                      .device = name,
                      .count = device.guard_bytes,
                      .driver = device.driver,
                      .group = device.group,
                      .translated = device.is_translated()});
    }
}

} // namespace moat::watch
